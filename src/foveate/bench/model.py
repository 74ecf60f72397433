"""The model that is timed: a random-weight Qwen2-VL with one visual token per image patch.

This is the one file here that knows transformers, because native caches are what we compare with.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from foveate.bench.timing import wait
from foveate.errors import InputError

IMAGE, START, END, VOCABULARY = 1000, 1001, 1002, 1024


@dataclass(frozen=True)
class Size:
    """How large the model and its prompt are."""

    layers: int = 8
    hidden: int = 512
    heads: int = 8
    kv_heads: int = 8
    visual: tuple[int, int] = (64, 64)
    text: int = 40
    inner: int = 0  # width of the feed-forward; three times `hidden` if 0

    @property
    def tokens(self) -> int:
        """Return the length of the prompt."""
        return self.visual[0] * self.visual[1] + self.text


def sized(size: Size, kv_heads: int) -> Size:
    """Return the size with another number of key-value heads."""
    if kv_heads < 1 or size.heads % kv_heads:
        allowed = ", ".join(str(n) for n in range(1, size.heads + 1) if size.heads % n == 0)
        raise InputError(
            f"--kv-heads {kv_heads} does not divide {size.heads} heads; choose one of {allowed}"
        )
    return replace(size, kv_heads=kv_heads)


@dataclass(frozen=True)
class Prompted:
    """A model with the inputs of one prompt."""

    model: Any
    inputs: dict[str, Any]
    size: Size

    @property
    def layers(self) -> Any:
        """Return the decoder layers of the text model."""
        return self.model.model.language_model.layers

    def native_cache(self) -> Any:
        """Return an empty native cache."""
        from transformers import DynamicCache

        return DynamicCache(config=self.model.config)

    def static_cache(self, length: int) -> Any:
        """Return an empty native cache with room for so many tokens."""
        from transformers import StaticCache

        return StaticCache(config=self.model.config, max_cache_len=length)

    def shortened(self, cache: Any, length: int) -> Any:
        """Return a native cache that holds the first `length` entries of another one."""
        short = self.native_cache()
        for index, layer in enumerate(cache.layers):
            keys, values = layer.keys[:, :, :length].clone(), layer.values[:, :, :length].clone()
            short.update(keys, values, index)
        return short

    def prefill(self, cache: Any) -> Tensor:
        """Return the logits after the prompt, whose keys and values go into the cache."""
        output = self.model(**self.inputs, past_key_values=cache, use_cache=True)
        return output.logits

    @contextmanager
    def attending(self, attend: Callable[..., Any]) -> Iterator[None]:
        """Let the text model attend by another function of Hugging Face's signature."""
        from transformers import AttentionInterface, AttentionMaskInterface
        from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

        AttentionInterface.register("foveate_bench", attend)
        AttentionMaskInterface.register("foveate_bench", ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
        text = self.model.config.get_text_config(decoder=True)
        before, text._attn_implementation = text._attn_implementation, "foveate_bench"
        try:
            yield
        finally:
            text._attn_implementation = before

    def prefill_with_matrices(self, cache: Any) -> list[Tensor]:
        """Return the column sums [H, T] of every layer, each from its whole [Hq, T, T] softmax."""
        sums: list[Tensor] = []

        def attend(module: Any, q: Tensor, k: Tensor, v: Tensor, mask: Any, **kwargs: Any) -> Any:
            groups = q.shape[1] // k.shape[1]
            weights = (q @ k.repeat_interleave(groups, 1).mT) * kwargs["scaling"]
            hidden = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).triu(1)
            weights = weights.masked_fill(hidden, torch.finfo(weights.dtype).min)
            weights = weights.softmax(-1, dtype=torch.float32)
            sums.append(weights.sum(-2)[0].unflatten(0, (-1, groups)).mean(1))
            out = weights.to(v.dtype) @ v.repeat_interleave(groups, 1)
            return out.transpose(1, 2).contiguous(), None

        with self.attending(attend):
            self.prefill(cache)
        return sums

    def attention_seconds(self, clock: Callable[[], float]) -> float:
        """Return how long one prefill of a native cache spends in attention, all layers."""
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        spent, device = [0.0], str(self.inputs["input_ids"].device)

        def attend(*args: Any, **kwargs: Any) -> Any:
            wait(device)
            began = clock()
            out = sdpa_attention_forward(*args, **kwargs)
            wait(device)
            spent[0] += clock() - began
            return out

        with self.attending(attend):
            self.prefill(self.native_cache())
        return spent[0]

    def generate(
        self, cache: Any, tokens: int, clock: Callable[[], float], **options: Any
    ) -> list[float]:
        """Return the milliseconds between the tokens that `generate` puts behind the prompt."""
        device, times = str(self.inputs["input_ids"].device), []

        def note(ids: Tensor, scores: Tensor) -> Tensor:
            wait(device)
            times.append(1000 * clock())
            return scores

        inputs = {k: v for k, v in self.inputs.items() if k != "logits_to_keep"}
        self.model.generate(
            **inputs,
            past_key_values=cache,
            max_new_tokens=tokens + 1,
            do_sample=False,
            pad_token_id=0,
            logits_processor=[note],
            **options,
        )
        return [after - before for before, after in pairwise(times)]

    def compiling(self, backend: str) -> dict[str, Any]:
        """Return the options with which `generate` compiles steps on any device, in one graph."""
        from transformers import CompileConfig

        if self.inputs["input_ids"].is_cuda:
            return {"compile_config": CompileConfig(fullgraph=True, backend=backend)}
        config: Any = CompileConfig(fullgraph=True, backend=backend, mode=None)  # type: ignore[arg-type]
        config._compile_all_devices = True  # a processor is not compiled for unasked
        return {"compile_config": config}

    def step(self, cache: Any, position: int) -> Tensor:
        """Return the logits after one more token at that position."""
        device = self.inputs["input_ids"].device
        token = torch.full((1, 1), 7, device=device)
        place = torch.full((3, 1, 1), position, device=device)
        return self.model(input_ids=token, position_ids=place, past_key_values=cache).logits


def build(size: Size, seed: int, device: str, dtype: torch.dtype) -> Prompted:
    """Return the model and a prompt of image placeholders and then text, both from the seed."""
    from transformers import Qwen2VLForConditionalGeneration

    torch.manual_seed(seed)
    model: Any = Qwen2VLForConditionalGeneration(_config(size))
    model = model.to(device, dtype).eval()
    rows, columns = size.visual
    count = rows * columns
    words = torch.randint(10, IMAGE, (size.text - 2,))
    ids = torch.cat([torch.tensor([START] + [IMAGE] * count + [END]), words])[None]
    inputs = {
        "input_ids": ids.to(device),
        "attention_mask": torch.ones_like(ids).to(device),
        "pixel_values": torch.randn(count, 3 * 2 * 4 * 4).to(device, dtype),
        "image_grid_thw": torch.tensor([[1, rows, columns]]).to(device),
        "mm_token_type_ids": (ids == IMAGE).long().to(device),
        "logits_to_keep": 1,
    }
    return Prompted(model, _accepted(model, inputs), size)


def _config(size: Size) -> Any:
    from transformers import Qwen2VLConfig

    half = size.hidden // size.heads // 2
    side = half * 3 // 8
    rope = {"rope_type": "default", "mrope_section": [half - 2 * side, side, side]}
    text = {
        "vocab_size": VOCABULARY,
        "bos_token_id": None,
        "eos_token_id": None,
        "hidden_size": size.hidden,
        "intermediate_size": size.inner or 3 * size.hidden,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.kv_heads,
        "max_position_embeddings": 32768,
        "rope_theta": 1e6,
        "rope_scaling": dict(rope),
        "rope_parameters": {**rope, "rope_theta": 1e6},
    }
    vision = {
        "depth": 1,
        "embed_dim": 32,
        "hidden_size": size.hidden,
        "num_heads": 1,
        "mlp_ratio": 2,
        "patch_size": 4,
        "spatial_merge_size": 1,
        "temporal_patch_size": 2,
    }
    return Qwen2VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=IMAGE,
        video_token_id=VOCABULARY - 1,
        vision_start_token_id=START,
        vision_end_token_id=END,
        tie_word_embeddings=True,
    )


def _accepted(model: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    """Return the inputs that this release of the model knows."""
    import inspect

    known = inspect.signature(model.forward).parameters
    return {name: value for name, value in inputs.items() if name in known}

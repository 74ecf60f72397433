"""Models of the papers, by the sizes in their Hugging Face configurations, whole or scaled down.

Weights are random and the image encoder is a stub: prompts are token ids of which a part is stated
to be visual, so that times are those of the language model alone.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from foveate.errors import InputError

LAYERS = 2  # of a scaled model
FACTORS = (1, 2, 4, 8, 16, 32)
STUB: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "image_size": 28,
    "patch_size": 14,
}


@dataclass(frozen=True)
class Shape:
    """Sizes of a language model, and the family of models that it is part of."""

    family: str  # model_type of the whole model
    layers: int
    heads: int
    kv_heads: int
    width: int  # of a head
    inner: int  # of the feed-forward
    vocabulary: int

    @property
    def hidden(self) -> int:
        """Return the width of the model."""
        return self.heads * self.width


SHAPES = {
    "Qwen2-VL-7B": Shape("qwen2_vl", 28, 28, 4, 128, 18944, 152064),
    "InternVL2-8B": Shape("internvl", 32, 32, 8, 128, 14336, 92553),
    "LLaVA-OneVision-7B": Shape("llava_onevision", 28, 28, 4, 128, 18944, 152000),
    "LLaVA-1.5-7B": Shape("llava", 32, 32, 32, 128, 11008, 32064),
    "Llama-3-8B": Shape("llama", 32, 32, 8, 128, 14336, 128256),
}


def scaled(shape: Shape, by: int) -> Shape:
    """Return a model whose parts stand to each other as in the whole one, if prompts shrink alike.

    The width is divided by `by`: heads by what leaves 2 or more for keys and values, the width of a
    head by the rest. Prompts and generated tokens have to be divided by `by` as well; batches stay.
    A layer's weights fall by the square of `by` then, and so do its keys and values, so that the
    share of keys and values in the bytes of a step stays, and so does the share of attention in a
    prefill. 2 of the layers stay, for all are alike; the vocabulary is divided by `by` times what
    layers are divided by, so that the last product keeps its share.
    """
    if by == 1:
        return shape
    if by not in FACTORS:
        allowed = ", ".join(map(str, FACTORS))
        raise InputError(f"a model cannot be divided by {by}; choose one of {allowed}")
    common = math.gcd(shape.heads, shape.kv_heads // 2, by)
    return replace(
        shape,
        layers=LAYERS,
        heads=shape.heads // common,
        kv_heads=shape.kv_heads // common,
        width=shape.width * common // by,
        inner=shape.inner // by,
        vocabulary=max(256, shape.vocabulary * LAYERS // (by * shape.layers)),
    )


def configured(shape: Shape) -> dict[str, Any]:
    """Return what a Hugging Face configuration of a shape is made of, `model_type` included."""
    text, last = _text(shape), shape.vocabulary - 1
    if shape.family == "llama":
        return {"model_type": "llama", **text}
    whole: dict[str, Any] = {"model_type": shape.family, "tie_word_embeddings": False}
    if shape.family == "qwen2_vl":
        side = shape.width * 3 // 16
        sections = [shape.width // 2 - 2 * side, side, side]
        rope = {"rope_type": "default", "mrope_section": sections}
        vision = {"depth": 1, "embed_dim": 32, "hidden_size": shape.hidden, "num_heads": 1}
        ids = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
        whole |= {name: last - place for place, name in enumerate(ids)}
        text |= {"rope_parameters": {**rope, "rope_theta": 1e6}}
        text |= {"rope_theta": 1e6, "rope_scaling": rope}  # until transformers 4
        return {**whole, "text_config": text, "vision_config": vision}
    reader = "qwen2" if shape.family == "llava_onevision" else "llama"
    encoder, word = {
        "llava": ("clip_vision_model", "image_token_index"),
        "llava_onevision": ("siglip_vision_model", "image_token_index"),
        "internvl": ("internvl_vision", "image_token_id"),
    }[shape.family]
    return {
        **whole,
        "text_config": {"model_type": reader, **text},
        "vision_config": {"model_type": encoder, **STUB},
        word: last,
    }


def _text(shape: Shape) -> dict[str, Any]:
    """Return what the configuration of a language model is made of."""
    return {
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.inner,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.width,
        "max_position_embeddings": 65536,
        "tie_word_embeddings": False,
        **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id")),
    }


@dataclass(frozen=True)
class Batched:
    """A model with prompts `ids` [B, T], of which `visual` [B, T] says what stands for images."""

    model: Any
    ids: Tensor
    visual: Tensor

    def native_cache(self) -> Any:
        """Return an empty native cache."""
        from transformers import DynamicCache

        return DynamicCache(config=self.model.config)

    def prefill(self, cache: Any) -> None:
        """Read the prompts into a cache."""
        self.model(input_ids=self.ids, past_key_values=cache, use_cache=True, logits_to_keep=1)

    def step(self, cache: Any, position: int) -> None:
        """Read one more token per row at that position."""
        places = torch.full_like(self.ids[:, :1], position)
        if self.model.config.model_type == "qwen2_vl":
            places = places.expand(3, -1, -1)
        self.model(input_ids=self.ids[:, :1], position_ids=places, past_key_values=cache)


def random_model(shape: Shape, seed: int, device: str, dtype: torch.dtype) -> nn.Module:
    """Return a model of a shape with weights from the seed, in place on its device."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    torch.manual_seed(seed)
    words = configured(shape)
    maker = AutoModelForCausalLM if shape.family == "llama" else AutoModelForImageTextToText
    with torch.device(device):
        model: nn.Module = maker.from_config(AutoConfig.for_model(**words), dtype=dtype)
    return model.eval()


def prompts(model: Any, batch: int, tokens: int, seed: int) -> Batched:
    """Return random prompts for a model; one in 32 tokens is text, a quarter of it in front."""
    device = next(model.parameters()).device
    source = torch.Generator().manual_seed(seed)
    ids = torch.randint(10, 250, (batch, tokens), generator=source).to(device)
    text = max(2, tokens // 32)
    visual = torch.ones(batch, tokens, dtype=torch.bool, device=device)
    visual[:, : max(1, text // 4)] = False
    visual[:, tokens - (text - max(1, text // 4)) :] = False
    return Batched(model, ids, visual)


def bytes_of_weights(model: nn.Module) -> int:
    """Return what one decode step reads of a model: its language model without embeddings."""
    parts = [
        parameter
        for name, parameter in model.named_parameters()
        if not any(word in name for word in ("visual.", "vision_", "projector", "embed_tokens"))
    ]
    return sum(part.numel() * part.element_size() for part in parts)

"""What a tiny family is: a real Hugging Face config, random weights, prompts with placeholders."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import pytest
import torch
import transformers
from packaging.version import Version
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

VERSION = Version(transformers.__version__)
PAD, BOS, EOS = 0, 2, 1
IMAGE, VIDEO, VISION_START, VISION_END, MARK = (
    200,
    201,
    202,
    203,
    204,
)  # MARK: tile, row or break tokens
SPECIAL = (PAD, EOS, *range(IMAGE, 211))
VOCAB = 211


@dataclass(frozen=True)
class Image:
    """One image of a prompt: the ids that stand for it (placeholders and marks) and its pixels."""

    ids: tuple[int, ...]
    pixels: dict[str, torch.Tensor] = field(compare=False)


@dataclass(frozen=True)
class Prompt:
    """One row: token ids, and the images in their order."""

    ids: tuple[int, ...]
    images: tuple[Image, ...] = ()

    @property
    def visual(self) -> int:
        """Number of placeholder positions."""
        return sum(token in (IMAGE, VIDEO) for token in self.ids)


# Rows by recipe: a number is that many text tokens, ("image", i) the family's i-th image size.
ONE = ((5, ("image", 0), 7),)
THREE = ((4, ("image", 1), 9), (2, ("image", 0), 3, ("image", 2), 5), (11, ("image", 3), 2))


@dataclass(frozen=True)
class Family:
    """A tiny architecture; `image(i, rng)` draws its i-th image, `collate(rows)` stacks pixels."""

    name: str
    model_type: str
    settings: Callable[[], dict[str, Any]]
    image: Callable[[int, torch.Generator], Image] | None = None
    collate: Callable[[Sequence[Sequence[Image]]], dict[str, torch.Tensor]] | None = None
    full_layers: tuple[int, ...] = (0, 1, 2)
    since: str = "4.57"

    def __str__(self) -> str:
        return self.name

    @property
    def is_visual(self) -> bool:
        """Whether prompts carry images."""
        return self.image is not None

    def require(self) -> None:
        """Skip the test where this transformers does not know the family."""
        if Version(self.since) > VERSION:
            pytest.skip(f"{self.name} needs transformers >= {self.since}, this is {VERSION}")

    def config(self) -> transformers.PretrainedConfig:
        """The family's shrunken config."""
        self.require()
        return AutoConfig.for_model(**{"model_type": self.model_type} | self.settings())

    def build(self, seed: int = 0, attention: str = "sdpa") -> torch.nn.Module:
        """A fresh model in eval mode, fp32, with weights so large that attention is not flat."""
        torch.manual_seed(seed)
        auto = AutoModelForImageTextToText if self.is_visual else AutoModelForCausalLM
        model = auto.from_config(self.config(), attn_implementation=attention).float().eval()
        enliven(model, seed)
        model.generation_config.eos_token_id = EOS
        model.generation_config.pad_token_id = PAD
        return model

    def prompts(self, batch: int, seed: int = 0) -> list[Prompt]:
        """One row, or three of different length and image size."""
        return [
            self.prompt(recipe, seed + row)
            for row, recipe in enumerate(ONE if batch == 1 else THREE)
        ]

    def prompt(self, recipe: Sequence[Any], seed: int = 0) -> Prompt:
        """The row of a recipe; text-only families get 19 text tokens where an image would stand."""
        rng = torch.Generator().manual_seed(1000 + seed)
        ids: list[int] = [BOS]
        images: list[Image] = []
        for piece in recipe:
            if isinstance(piece, int):
                ids += torch.randint(5, 190, (piece,), generator=rng).tolist()
            elif self.image is None:
                ids += torch.randint(5, 190, (19 + 3 * piece[1],), generator=rng).tolist()
            else:
                images.append(self.image(piece[1], rng))
                ids += images[-1].ids
        return Prompt(tuple(ids), tuple(images))

    def encode(self, prompts: Sequence[Prompt]) -> dict[str, torch.Tensor]:
        """What a processor returns for these rows: left-padded ids and mask, pixels, the extras."""
        self.require()
        length = max(len(prompt.ids) for prompt in prompts)
        ids = torch.tensor([[PAD] * (length - len(p.ids)) + list(p.ids) for p in prompts])
        mask = torch.tensor([[0] * (length - len(p.ids)) + [1] * len(p.ids) for p in prompts])
        inputs = {"input_ids": ids, "attention_mask": mask}
        if self.collate and any(p.images for p in prompts):
            inputs |= self.collate([p.images for p in prompts])
        kinds = (ids == IMAGE).long() + 2 * (ids == VIDEO).long()
        accepted = forward_arguments(self.model_type, self.is_visual)
        if "mm_token_type_ids" in accepted and self.is_visual:
            inputs["mm_token_type_ids"] = kinds
        if "token_type_ids" in accepted and self.is_visual:
            inputs["token_type_ids"] = (kinds > 0).long()
        return inputs

    def inputs(self, batch: int, seed: int = 0) -> dict[str, torch.Tensor]:
        """`encode(prompts(batch))`."""
        return self.encode(self.prompts(batch, seed))


@lru_cache
def forward_arguments(model_type: str, visual: bool) -> frozenset[str]:
    """Names of the arguments that the family's `forward` takes."""
    auto = AutoModelForImageTextToText if visual else AutoModelForCausalLM
    model_class = auto._model_mapping[type(AutoConfig.for_model(model_type))]
    return frozenset(inspect.signature(model_class.forward).parameters)


@torch.no_grad()
def enliven(model: torch.nn.Module, seed: int) -> None:
    """Draw matrices by fan-in: default weights give attention so flat that nothing matters."""
    rng = torch.Generator().manual_seed(77 + seed)
    for name, weight in model.named_parameters():
        if weight.ndim >= 2:
            gain = (
                1.0
                if "embed" in name
                else (0.5 if "lm_head" in name else 1.3) / weight[0].numel() ** 0.5
            )
            weight.copy_(torch.randn(weight.shape, generator=rng) * gain)
        elif "norm" not in name:
            weight.copy_(torch.randn(weight.shape, generator=rng) * 0.05)
    model.tie_weights()


def pixels(shape: Sequence[int], rng: torch.Generator) -> torch.Tensor:
    """Normalised pixel values, never exactly zero (all-zero tiles mean padding in Idefics3)."""
    return torch.randn(tuple(shape), generator=rng)


def rope(theta: float = 10000.0, **scaling: Any) -> dict[str, Any]:
    """Rotary settings in the spelling of the installed version."""
    if Version("5.0") <= VERSION:
        return {"rope_parameters": {"rope_type": "default", "rope_theta": theta, **scaling}}
    return {"rope_theta": theta} | (
        {"rope_scaling": {"type": "mrope", **scaling}} if scaling else {}
    )


def text(model_type: str, **changes: Any) -> dict[str, Any]:
    """A text config of 3 layers, 6 query heads over 2 KV heads of width 8."""
    return {
        "model_type": model_type,
        "vocab_size": VOCAB,
        "hidden_size": 48,
        "intermediate_size": 52,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 1024,
        "pad_token_id": PAD,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "tie_word_embeddings": False,
    } | changes


def vision(model_type: str, **changes: Any) -> dict[str, Any]:
    """A vision config of 2 layers, 28 x 28 pixels in patches of 7."""
    return {
        "model_type": model_type,
        "hidden_size": 24,
        "intermediate_size": 28,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 7,
        "num_channels": 3,
    } | changes

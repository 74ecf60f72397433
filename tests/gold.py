"""The slow twin of a compressed cache: the full cache, evicted positions hidden from decode steps.

Nothing here knows how Foveate works. An attention function of its own, in plain softmax, is put
into the language model; it hides, per layer, row and head, what a report says is not kept.
"""

import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from families import SPECIAL

STEPS = 12
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Stage:
    """What is hidden after the first `length` logical tokens: per layer `[B, H, length]`."""

    length: int
    hidden: Mapping[int, Tensor]


_stages: list[Stage] = []
_owners: list[tuple[weakref.ref[Tensor], int]] = []  # keys of this step, and whose they are


def _owner(module: Any, keys: Tensor) -> int:
    """The layer that owns these keys: the module's own, or one that shares its keys with it."""
    layer: int = module.layer_idx
    mine = [owner for owner in _owners if owner[0]() is keys]
    if mine:
        return mine[0][1]
    _owners[:] = [owner for owner in _owners if owner[0]() is not None]
    _owners.append((weakref.ref(keys), layer))
    return layer


def _attend(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor, scaling: float) -> Tensor:
    """Softmax attention, written out; q `[B, Hq, R, D]`, allowed `[B, Hq, R, L]`."""
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    scores = (q @ k.mT) * scaling
    weights = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min).softmax(-1)
    return (weights @ v).transpose(1, 2).contiguous()


def _gold(
    module: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, **kwargs: Any
) -> tuple:
    """sdpa until a stage begins; then the full cache with that stage's positions hidden."""
    layer = _owner(module, k) if hasattr(module, "layer_idx") else -1
    past = [s for s in _stages if k.shape[2] > s.length and layer in s.hidden]
    if not past:
        return sdpa_attention_forward(module, q, k, v, mask, **kwargs)
    hidden = past[-1].hidden[layer]
    (batch, heads, queries, width), length = q.shape, k.shape[2]
    allowed = (
        torch.ones(queries, length, dtype=torch.bool).tril(length - queries)
        if mask is None
        else mask
    )
    allowed = allowed.expand(batch, heads, queries, length).clone()
    allowed[..., : hidden.shape[-1]] &= ~hidden.repeat_interleave(heads // hidden.shape[1], 1)[
        :, :, None
    ]
    scaling = kwargs.get("scaling") or width**-0.5
    return _attend(q, k, v, allowed, scaling), None


AttentionInterface.register("gold", _gold)
AttentionMaskInterface.register("gold", ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])


@contextmanager
def attending(model: torch.nn.Module, name: str) -> Iterator[None]:
    """Let the language model, and nothing else, attend with the function of that name."""
    kind = type(model.config.get_text_config(decoder=True))
    found = (getattr(module, "config", None) for module in model.modules())
    configs = {id(config): config for config in found if isinstance(config, kind)}
    before = {key: config._attn_implementation for key, config in configs.items()}
    try:
        for config in configs.values():
            config._attn_implementation = name
        yield
    finally:
        for key, config in configs.items():
            config._attn_implementation = before[key]


@contextmanager
def hiding(model: torch.nn.Module, *stages: Stage) -> Iterator[None]:
    """Let the language model run with the full cache and these stages' positions hidden."""
    _stages[:] = stages
    try:
        with attending(model, "gold"):
            yield
    finally:
        _stages.clear()
        _owners.clear()


def hidden(report: Any, layers: Iterable[int], shape: tuple[int, int, int]) -> dict[int, Tensor]:
    """Per layer the complement of what the report says is kept, `[B, H, T]`."""
    return {layer: ~kept_mask(report, layer, shape) for layer in layers}


def kept_mask(report: Any, layer: int, shape: tuple[int, int, int]) -> Tensor:
    """What a layer keeps as a mask `[B, H, T]`."""
    mask = torch.zeros(shape, dtype=torch.bool)
    for row in range(shape[0]):
        for head in range(shape[1]):
            positions = report.kept(layer, row, head)
            assert positions.tolist() == sorted(set(positions.tolist())), (
                "kept positions ascend, each once"
            )
            mask[row, head, positions] = True
    return mask


def generate(model: torch.nn.Module, inputs: Mapping[str, Tensor], **kwargs: Any) -> Any:
    """Greedy, exactly STEPS tokens (no end among them), with the raw logits of every step."""
    options: dict[str, Any] = {
        "max_new_tokens": STEPS,
        "do_sample": False,
        "suppress_tokens": list(SPECIAL),
    }
    options |= {"output_logits": True, "return_dict_in_generate": True} | kwargs
    return model.generate(**inputs, **options)


def untouched(model: torch.nn.Module, inputs: Mapping[str, Tensor], **options: Any) -> Any:
    """The untouched model's output; skips the test where this transformers cannot do it at all."""
    try:
        return generate(model, inputs, **options)
    except (ValueError, IndexError, RuntimeError) as error:
        pytest.skip(
            f"transformers {transformers.__version__} itself: {' '.join(str(error).split())}"
        )


def logits(output: Any) -> Tensor:
    """Logits of all steps, `[steps, B, vocabulary]`."""
    return torch.stack(output.logits)


def distance(a: Any, b: Any) -> float:
    """Largest absolute difference of the logits of two outputs."""
    return (logits(a) - logits(b)).abs().max().item()


def same(a: Any, b: Any) -> bool:
    """Whether two outputs have the same tokens and bit-identical logits."""
    return torch.equal(a.sequences, b.sequences) and torch.equal(logits(a), logits(b))


def positions_of(inputs: Mapping[str, Tensor], tokens: Sequence[int]) -> Tensor:
    """Where the prompt has one of these tokens, `[B, T]`."""
    return torch.isin(inputs["input_ids"], torch.tensor(tokens))

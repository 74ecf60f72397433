"""Ways to run a tiny family through Foveate, and what every compressed run must satisfy."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from packaging.version import Version
from torch import Tensor
from transformers import DynamicCache

import foveate
import gold
from families import IMAGE, PAD, VERSION, VISUAL, Family
from foveate.cache.ragged import Ragged

MODES = (
    "qwen2-vl",
    "llava-onevision",
    "gemma3",
    "internvl",
)  # one per kind of placeholder and mask


def heads(model: torch.nn.Module) -> int:
    """Number of key-value heads."""
    return model.config.get_text_config().num_key_value_heads


def candidates(family: Family, inputs: Mapping[str, Tensor]) -> Tensor:
    """What may go, `[B, T]`: placeholders, or for a text model a block inside every row."""
    ids = inputs["input_ids"]
    if family.is_visual:
        return ids == IMAGE
    valid = inputs["attention_mask"].bool()
    place, length = valid.cumsum(-1), valid.sum(-1, keepdim=True)
    return valid & (place > 6) & (place <= length - 5)


def cache_for(
    family: Family, model: torch.nn.Module, inputs: Mapping[str, Tensor], method: foveate.Method
) -> "foveate.CompressedCache":
    """A compressed cache; text models are told which tokens count as visual."""
    mask = None if family.is_visual else candidates(family, inputs)
    return foveate.CompressedCache(model, method, visual_mask=mask)


def by_cache(
    family: Family, model: Any, inputs: Any, method: Any, **options: Any
) -> tuple[Any, Any]:
    """`generate(past_key_values=cache)`: output and report."""
    cache = cache_for(family, model, inputs, method)
    output = gold.generate(model, inputs, past_key_values=cache, **options)
    return output, cache.report()


def by_context(
    family: Family, model: Any, inputs: Any, method: Any, **options: Any
) -> tuple[Any, Any]:
    """`with compress(...)`: output and report."""
    with foveate.compress(model, method) as session:
        output = gold.generate(model, inputs, **options)
    assert session.reports[-1] is session.report
    return output, session.report


def compressed(
    family: Family, model: Any, inputs: Any, method: Any, **options: Any
) -> tuple[Any, Any]:
    """The way in that fits: the context, or a cache with an explicit mask for text models."""
    run = by_context if family in VISUAL else by_cache
    return run(family, model, inputs, method, **options)


def shape(
    model: torch.nn.Module, inputs: Mapping[str, Tensor], copies: int = 1
) -> tuple[int, int, int]:
    """Rows, key-value heads and logical length of a prompt."""
    rows, length = inputs["input_ids"].shape
    return rows * copies, heads(model), length


def kept(
    family: Family, model: Any, inputs: Any, report: Any, copies: int = 1
) -> dict[int, Tensor]:
    """Per full-attention layer what is kept, `[B, H, T]`."""
    size = shape(model, inputs, copies)
    return {layer: gold.kept_mask(report, layer, size) for layer in family.full_layers}


def stage(family: Family, model: Any, inputs: Any, report: Any, copies: int = 1) -> gold.Stage:
    """What the slow twin hides after this prompt."""
    masks = kept(family, model, inputs, report, copies)
    return gold.Stage(inputs["input_ids"].shape[1], {layer: ~mask for layer, mask in masks.items()})


def budget(keep: float, V: int, N: int) -> int:
    """Visual tokens that one head keeps over all layers: exact, but one per layer at least."""
    return max(round(keep * V * N), min(V, 1) * N)


def check_selection(family: Family, model: Any, inputs: Any, report: Any, keep: float) -> None:
    """Text stays, pads go, every row keeps exactly round(keep x V x N) visual tokens per head."""
    masks = kept(family, model, inputs, report)
    may_go, pads = candidates(family, inputs), inputs["attention_mask"] == 0
    for layer, mask in masks.items():
        assert mask[(~may_go & ~pads)[:, None].expand_as(mask)].all(), f"layer {layer} lost text"
        assert not mask[pads[:, None].expand_as(mask)].any(), f"layer {layer} kept padding"
    visual = sum((mask & may_go[:, None]).sum((1, 2)) for mask in masks.values())
    for row, V in enumerate(may_go.sum(-1).tolist()):
        promised = budget(keep, V, len(masks)) * heads(model)
        assert visual[row] == promised, (
            f"row {row} keeps {visual[row]} of {V} x {len(masks)} tokens"
        )
    told = sum(layer.kept_visual for layer in report.layers)
    assert told * heads(model) == pytest.approx(visual.sum().item()), (
        "the report's sum is what is kept"
    )


def unpadded(mask: Tensor, inputs: Mapping[str, Tensor], row: int) -> Tensor:
    """One row of a kept mask `[B, H, T]`, without its left padding."""
    return mask[row][:, inputs["input_ids"][row] != PAD]


def follow(family: Family, inputs: Any, sequences: Tensor, recipe: Any, seed: int = 50) -> Any:
    """Inputs of the next turn: everything so far and a recipe's tokens; new images only."""
    more = family.encode([family.prompt(recipe, seed + row) for row in range(len(sequences))])
    ids = torch.cat([sequences, more["input_ids"]], 1)
    new = ids.shape[1] - inputs["input_ids"].shape[1]
    mask = torch.nn.functional.pad(inputs["attention_mask"], (0, new), value=1)
    turn = {"input_ids": ids, "attention_mask": mask}
    for name in {"mm_token_type_ids", "token_type_ids"} & set(inputs):
        turn[name] = (ids == IMAGE).long()
    return turn | {name: value for name, value in more.items() if name not in turn}


def two_turns(
    family: Family, model: Any, inputs: Any, cache: Any, recipe: Any, between: Any = lambda: None
) -> tuple[Any, Any, Any, Any]:
    """Outputs of a first turn and a second one on the same cache."""
    first = gold.generate(model, inputs, past_key_values=cache)
    turn = follow(family, inputs, first.sequences, recipe)
    return first, between(), turn, gold.generate(model, turn, past_key_values=cache)


def native_turns(family: Family, model: Any, inputs: Any, recipe: Any) -> tuple[Any, Any, Any]:
    """Both outputs and the second input on the untouched model; skips where that cannot be."""
    cache = DynamicCache(config=model.config)
    first = gold.generate(model, inputs, past_key_values=cache)
    turn = follow(family, inputs, first.sequences, recipe)
    return cache, turn, gold.untouched(model, turn, past_key_values=copy.deepcopy(cache))


@contextmanager
def lookup_beside_windows(family: Family) -> Iterator[None]:
    """Old releases cannot take drafts back from sliding layers: there a refusal must say so."""
    try:
        yield
    except foveate.FoveateError as refusal:
        assert "sliding" in str(refusal) and Version("5.20") > VERSION
        assert family.name == "gemma3"
        pytest.skip(str(refusal))


def same(a: Tensor | None, b: Tensor | None) -> bool:
    """Whether two tensors, or two Nones, are equal in every bit."""
    if a is None or b is None:
        return a is b
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)


def check_same(caches: Any) -> None:
    """Assert that two caches hold the same in every layer."""
    one, two = caches
    for a, b in zip(one.compressed_layers, two.compressed_layers, strict=True):
        x, y = a.store, b.store
        assert a.loose is b.loose is None
        assert (x.name, x.seen, x.start) == (y.name, y.seen, y.start)
        x.check()
        for left, right in zip(x.slots(), y.slots(), strict=True):
            assert same(left, right)
        if isinstance(x, Ragged):
            parts = (x.prefix, y.prefix)
            assert all(same(*(getattr(p, n) for p in parts)) for n in ("positions", "offsets"))
            assert all(same(*(getattr(p, n) for p in parts)) for n in ("keys", "values"))
        else:
            assert same(x.positions, y.positions)
        assert same(x.planned, y.planned)
        assert x.state.keys() == y.state.keys()
        assert all(same(x.state[name], y.state[name]) for name in x.state)
        assert x.nbytes == y.nbytes
    assert one.explain.keys() == two.explain.keys()
    for layer, numbers in one.explain.items():
        assert all(same(value, two.explain[layer][name]) for name, value in numbers.items())
    assert same(one.shift, two.shift)

"""Every preset through `generate` on four families, under both accountings."""

from typing import Any

import pytest
import torch

import families
import foveate
import gold
from seam import candidates, compressed, heads, kept, stage, unpadded

FAMILIES = pytest.mark.parametrize(
    "family",
    [families.BY_NAME[name] for name in ("qwen2-vl", "llava-onevision", "internvl", "llama")],
    ids=str,
)
NAMES = [info.name for info in foveate.methods() if info.name != "full"]
PRESETS = pytest.mark.parametrize("name", [*NAMES, "mixkv+adakv", "mixkv+sparsemm"])
SCOPES = pytest.mark.parametrize("scope", ["native", "visual"])
ALONE = {"every": 0, "merge": False}  # what would change entries, or evict later
MORE = {"lookm": "union of text and budget", "sparsemm": "clamped heads lose their share"}


def options(name: str) -> list[str]:
    """Names of the options of a preset."""
    infos = {info.name: info for info in foveate.methods()}
    return [option.name for option in infos[name.partition("+")[0]].options]


def plain(name: str, keep: float, scope: str) -> foveate.Method:
    """The preset without merging and without eviction while decoding."""
    given: dict[str, Any] = {key: value for key, value in ALONE.items() if key in options(name)}
    if name == "lookm":
        given["merge"] = "none"
    if name == "aircache":
        del given["merge"]
    return foveate.method(name, keep=keep, scope=scope, **given)


@FAMILIES
@PRESETS
def test_everything_kept_is_bit_identical(family, name):
    model, inputs = family.build(), family.inputs(3)
    untouched = gold.generate(model, inputs)
    for scope in ("native", "visual"):
        output, report = compressed(
            family, model, inputs, foveate.method(name, keep=1.0, scope=scope)
        )
        assert gold.same(output, untouched)
        assert report.bytes_stored == report.bytes_full


@FAMILIES
@PRESETS
@SCOPES
def test_evicted_is_hidden_and_the_total_is_kept(family, name, scope):
    model, inputs = family.build(), family.inputs(3)
    full = gold.generate(model, inputs)
    output, report = compressed(family, model, inputs, plain(name, 0.4, scope))
    with gold.hiding(model, stage(family, model, inputs, report)):
        twin = gold.generate(model, inputs)
    assert gold.distance(output, twin) <= gold.TOLERANCE
    assert torch.equal(output.logits[0], full.logits[0]), "the first token sees the whole prompt"
    masks = kept(family, model, inputs, report)
    valid = inputs["attention_mask"].bool()
    counted = valid if is_native(name, scope) else candidates(family, inputs)
    found = sum((mask & counted[:, None]).sum((1, 2)) for mask in masks.values())
    promised = [round(0.4 * n * len(masks)) * heads(model) for n in counted.sum(-1).tolist()]
    if name == "lookm" and scope == "native":
        assert all(a >= b for a, b in zip(found.tolist(), promised, strict=True))
    elif "sparsemm" in name:  # whole numbers per head, each rounded by itself
        assert all(abs(a - b) <= found.numel() * len(masks) * heads(model)
                   for a, b in zip(found.tolist(), promised, strict=True))  # fmt: skip
    else:
        assert found.tolist() == promised
    if counted is not valid:
        text = valid & ~counted
        assert all(mask[text[:, None].expand_as(mask)].all() for mask in masks.values())


def is_native(name: str, scope: str) -> bool:
    """Whether all tokens are candidates."""
    return scope == "native" and name not in (
        "aircache",
        "random",
        "recency",
        "infinipotv",
        "foveate",
    )


@FAMILIES
@PRESETS
@SCOPES
def test_padded_row_is_row_alone(family, name, scope):
    model, inputs = family.build(), family.inputs(3)
    method = foveate.method(name, keep=0.4, scope=scope)
    together, report = compressed(family, model, inputs, method)
    masks = kept(family, model, inputs, report)
    for row, prompt in enumerate(family.prompts(3)):
        lone = family.encode([prompt])
        alone, own = compressed(family, model, lone, method)
        for layer, mask in kept(family, model, lone, own).items():
            assert torch.equal(unpadded(masks[layer], inputs, row), mask[0]), f"layer {layer}"
        difference = gold.logits(together)[:, row] - gold.logits(alone)[:, 0]
        assert difference.abs().max() <= gold.TOLERANCE

"""Evicting is hiding: a compressed run equals the full cache with those positions masked."""

import pytest
import torch

import families
import foveate
import gold
from seam import candidates, check_selection, compressed, heads, kept, stage

FAMILIES = pytest.mark.parametrize("family", families.COMPRESSIBLE, ids=str)
BATCHES = pytest.mark.parametrize("batch", [1, 3])
METHODS = pytest.mark.parametrize(
    ("method", "keep"),
    [pytest.param(lambda: foveate.aircache(keep=0.1), 0.1, id="aircache-10%"),
     pytest.param(lambda: foveate.random(keep=0.3, seed=5), 0.3, id="random-30%"),
     pytest.param(lambda: foveate.recency(keep=0.15), 0.15, id="recency-15%")],
)  # fmt: skip


@FAMILIES
@BATCHES
@METHODS
def test_evicted_is_hidden(family, batch, method, keep):
    model, inputs = family.build(), family.inputs(batch)
    full = gold.generate(model, inputs)
    output, report = compressed(family, model, inputs, method())
    check_selection(family, model, inputs, report, keep)
    with gold.hiding(model, stage(family, model, inputs, report)):
        twin = gold.generate(model, inputs)
    assert gold.distance(output, twin) <= gold.TOLERANCE
    assert torch.equal(output.sequences, twin.sequences)
    assert torch.equal(output.logits[0], full.logits[0]), "the first token sees the whole prompt"
    assert gold.distance(output, full) > 1e-2, "the eviction does something"


@FAMILIES
@BATCHES
def test_twin_with_one_swapped_slot_is_noticed(family, batch):
    model, inputs = family.build(), family.inputs(batch)
    output, report = compressed(family, model, inputs, foveate.random(keep=0.3, seed=5))
    masks = kept(family, model, inputs, report)
    layer = family.full_layers[-1]
    mine, visual = masks[layer][-1, 0], candidates(family, inputs)[-1]
    there, elsewhere = (mine & visual).nonzero()[0], (~mine & visual).nonzero()[-1]
    mine[there], mine[elsewhere] = False, True
    swapped = gold.Stage(mine.shape[-1], {index: ~mask for index, mask in masks.items()})
    with gold.hiding(model, swapped):
        twin = gold.generate(model, inputs)
    assert gold.distance(output, twin) > 10 * gold.TOLERANCE


@FAMILIES
def test_random_keeps_different_tokens_in_every_head_and_layer(family):
    model, inputs = family.build(), family.inputs(3)
    _, report = compressed(family, model, inputs, foveate.random(keep=0.3, seed=5))
    masks = list(kept(family, model, inputs, report).values())
    assert not torch.equal(masks[0][:, 0], masks[0][:, 1])
    assert not torch.equal(masks[0], masks[1])
    _, again = compressed(family, model, inputs, foveate.random(keep=0.3, seed=5))
    assert all(
        torch.equal(a, b)
        for a, b in zip(masks, kept(family, model, inputs, again).values(), strict=True)
    )
    _, other = compressed(family, model, inputs, foveate.random(keep=0.3, seed=6))
    assert not torch.equal(masks[0], next(iter(kept(family, model, inputs, other).values())))


@FAMILIES
@pytest.mark.parametrize("k_min", [0, 1])
def test_a_single_visual_token_is_kept(family, k_min):
    """One token in the whole model (k_min=0), or one in every layer."""
    model, inputs = family.build(), family.inputs(1)
    visual, N = candidates(family, inputs), len(family.full_layers)
    method = foveate.aircache(keep=1 / (int(visual.sum()) * N), k_min=k_min)
    output, report = compressed(family, model, inputs, method)
    masks = kept(family, model, inputs, report).values()
    held = sum(int((mask & visual).sum()) for mask in masks)
    assert held == heads(model) * (N if k_min else 1)
    with gold.hiding(model, stage(family, model, inputs, report)):
        twin = gold.generate(model, inputs)
    assert gold.distance(output, twin) <= gold.TOLERANCE
    assert torch.equal(output.sequences, twin.sequences)


@FAMILIES
def test_eager_and_sdpa_agree(family):
    inputs, runs = family.inputs(3), []
    for attention in ("sdpa", "eager"):
        model = family.build(attention=attention)
        runs.append((*compressed(family, model, inputs, foveate.aircache(keep=0.2)), model))
    (a, first, model), (b, second, _) = runs
    masks = kept(family, model, inputs, first), kept(family, model, inputs, second)
    assert all(torch.equal(masks[0][layer], masks[1][layer]) for layer in masks[0])
    assert gold.distance(a, b) <= gold.TOLERANCE

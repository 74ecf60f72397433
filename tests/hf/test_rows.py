"""A row is compressed by itself: padding, neighbours and their order change nothing."""

import pytest
import torch

import families
import foveate
import gold
from seam import by_cache, compressed, kept, unpadded

FAMILIES = pytest.mark.parametrize("family", families.VISUAL, ids=str)


@FAMILIES
@pytest.mark.parametrize("keep", [0.1, 0.5])
def test_padded_row_is_row_alone(family, keep):
    model, inputs, method = family.build(), family.inputs(3), foveate.aircache(keep=keep)
    together, report = compressed(family, model, inputs, method)
    masks = kept(family, model, inputs, report)
    for row, prompt in enumerate(family.prompts(3)):
        lone = family.encode([prompt])
        alone, own = compressed(family, model, lone, method)
        for layer, mask in kept(family, model, lone, own).items():
            assert torch.equal(unpadded(masks[layer], inputs, row), mask[0]), f"layer {layer}"
        difference = gold.logits(together)[:, row] - gold.logits(alone)[:, 0]
        assert difference.abs().max() <= gold.TOLERANCE
        assert torch.equal(
            together.sequences[row, -gold.STEPS :], alone.sequences[0, -gold.STEPS :]
        )


@FAMILIES
def test_order_of_rows_is_irrelevant(family):
    model, prompts, method = family.build(), family.prompts(3), foveate.aircache(keep=0.2)
    order = [2, 0, 1]
    inputs, shuffled = family.encode(prompts), family.encode([prompts[i] for i in order])
    first, a = compressed(family, model, inputs, method)
    second, b = by_cache(family, model, shuffled, method)
    masks, turned = kept(family, model, inputs, a), kept(family, model, shuffled, b)
    assert all(torch.equal(masks[layer][order], turned[layer]) for layer in masks)
    assert (gold.logits(first)[:, order] - gold.logits(second)).abs().max() <= gold.TOLERANCE


@FAMILIES
def test_more_padding_changes_nothing(family):
    model, method = family.build(), foveate.aircache(keep=0.2)
    prompts = family.prompts(3)
    long = family.prompt((120, ("image", 0), 9), seed=9)
    (tight, a), (wide, b) = (
        compressed(family, model, family.encode(rows), method)
        for rows in ([prompts[0], prompts[2]], [prompts[0], long])
    )
    assert (gold.logits(tight)[:, 0] - gold.logits(wide)[:, 0]).abs().max() <= gold.TOLERANCE
    layer = family.full_layers[0]
    counts = [len(report.kept(layer, 0, 0)) for report in (a, b)]
    assert counts[0] == counts[1]

"""The slow twin is itself a true full cache, and it is sensitive."""

import pytest
import torch

import families
import gold
from seam import candidates, shape

FAMILIES = pytest.mark.parametrize("family", families.COMPRESSIBLE, ids=str)


@FAMILIES
@pytest.mark.parametrize("batch", [1, 3])
def test_twin_that_hides_nothing_is_the_untouched_model(family, batch):
    model, inputs = family.build(), family.inputs(batch)
    full = gold.generate(model, inputs)
    nothing = torch.zeros(shape(model, inputs), dtype=torch.bool)
    with gold.hiding(
        model, gold.Stage(nothing.shape[-1], dict.fromkeys(family.full_layers, nothing))
    ):
        twin = gold.generate(model, inputs)
    assert gold.distance(full, twin) <= gold.TOLERANCE
    assert torch.equal(full.sequences, twin.sequences)
    assert gold.same(full, gold.generate(model, inputs)), "the twin leaves no trace on the model"


@FAMILIES
def test_twin_notices_one_hidden_slot_of_one_head(family):
    model, inputs = family.build(), family.inputs(1)
    full = gold.generate(model, inputs)
    mask = torch.zeros(shape(model, inputs), dtype=torch.bool)
    mask[0, 1, candidates(family, inputs)[0].nonzero()[3]] = True
    with gold.hiding(model, gold.Stage(mask.shape[-1], {family.full_layers[-1]: mask})):
        twin = gold.generate(model, inputs)
    assert gold.distance(full, twin) > 10 * gold.TOLERANCE
    assert torch.equal(full.logits[0], twin.logits[0]), "the prompt itself sees everything"


@pytest.mark.parametrize("family", families.VISUAL, ids=str)
def test_images_matter_and_rows_are_independent(family):
    model, inputs = family.build(), family.inputs(3)
    full = gold.logits(gold.generate(model, inputs))
    for row, prompt in enumerate(family.prompts(3)):
        alone = gold.logits(gold.generate(model, family.encode([prompt])))
        assert (alone[:, 0] - full[:, row]).abs().max() <= gold.TOLERANCE
    inputs["pixel_values"] = inputs["pixel_values"].flip(-1)
    assert (gold.logits(gold.generate(model, inputs)) - full).abs().max() > 1e-2

"""Keeping everything is the untouched model, bit for bit, whichever way in."""

import pytest
import torch

import families
import foveate
import gold
from seam import by_cache, by_context, cache_for, candidates

FAMILIES = pytest.mark.parametrize("family", families.COMPRESSIBLE, ids=str)
BATCHES = pytest.mark.parametrize("batch", [1, 3])
EVERYTHING = pytest.mark.parametrize(
    "method",
    [pytest.param(lambda: foveate.aircache(keep=1.0), id="aircache-100%"),
     pytest.param(lambda: foveate.full(), id="full")],
)  # fmt: skip


@FAMILIES
@BATCHES
@EVERYTHING
@pytest.mark.parametrize("entry", [by_context, by_cache])
def test_everything_kept_is_bit_identical(family, batch, method, entry):
    model, inputs = family.build(), family.inputs(batch)
    untouched = gold.generate(model, inputs)
    output, report = entry(family, model, inputs, method())
    assert gold.distance(output, untouched) == 0.0
    assert gold.same(output, untouched)
    assert report.bytes_stored == report.bytes_full
    assert report.kept_visual == pytest.approx(report.total_visual)
    assert report.kept_text == pytest.approx(report.total_text)


@FAMILIES
def test_everything_kept_is_bit_identical_with_eager_attention(family):
    model, inputs = family.build(attention="eager"), family.inputs(3)
    untouched = gold.generate(model, inputs)
    cache = cache_for(family, model, inputs, foveate.aircache(keep=1.0))
    assert gold.same(gold.generate(model, inputs, past_key_values=cache), untouched)
    if family.is_visual:
        output, _ = by_context(family, model, inputs, foveate.full())
        assert gold.same(output, untouched)


@pytest.mark.parametrize("family", families.VISUAL, ids=str)
def test_everything_kept_is_bit_identical_in_bfloat16(family):
    model = family.build().bfloat16()
    inputs = {k: v.bfloat16() if v.is_floating_point() else v for k, v in family.inputs(3).items()}
    untouched = gold.generate(model, inputs)
    output, _ = by_context(family, model, inputs, foveate.aircache(keep=1.0))
    assert gold.same(output, untouched)


@pytest.mark.parametrize("family", families.TEXT, ids=str)
@pytest.mark.parametrize("batch", [1, 3])
def test_prompt_without_images_passes_through_and_says_so(family, batch):
    model, inputs = family.build(), family.inputs(batch)
    untouched = gold.generate(model, inputs)
    output, report = by_context(family, model, inputs, foveate.aircache(keep=0.1))
    assert gold.same(output, untouched)
    assert report.bytes_stored == report.bytes_full
    assert any("visual" in note or "image" in note for note in report.notes), report.notes


@pytest.mark.parametrize("family", families.VISUAL, ids=str)
def test_text_only_prompt_of_a_visual_model_passes_through_and_says_so(family):
    model = family.build()
    inputs = family.encode([family.prompt((13,)), family.prompt((21,), seed=1)])
    untouched = gold.generate(model, inputs)
    output, report = by_context(family, model, inputs, foveate.aircache(keep=0.1))
    assert gold.same(output, untouched)
    assert report.notes and report.total_visual == report.kept_visual == 0


@pytest.mark.parametrize("family", families.VISUAL, ids=str)
def test_a_row_without_image_beside_a_row_with_one_is_left_whole(family):
    model = family.build()
    prompts = [family.prompt((17,)), family.prompt((4, ("image", 0), 6), seed=1)]
    inputs = family.encode(prompts)
    untouched = gold.generate(model, inputs)
    output, report = by_context(family, model, inputs, foveate.aircache(keep=0.1))
    rows = gold.logits(output)[:, 0], gold.logits(untouched)[:, 0]
    assert (rows[0] - rows[1]).abs().max() <= gold.TOLERANCE
    assert gold.distance(output, untouched) > 1e-3, "the row with the image is compressed"
    valid = inputs["attention_mask"][0].nonzero().flatten().tolist()
    assert not candidates(family, inputs)[0].any()
    assert report.kept(family.full_layers[0], 0, 1).tolist() == valid


def test_the_two_ways_in_agree(seed):
    family = families.BY_NAME["qwen2-vl"]
    model, inputs = family.build(), family.inputs(3)
    method = foveate.aircache(keep=0.2)
    (a, first), (b, second) = (
        enter(family, model, inputs, method) for enter in (by_context, by_cache)
    )
    assert gold.same(a, b)
    assert torch.equal(first.kept(1, 2, 0), second.kept(1, 2, 0))
    with foveate.compress(model, "aircache", keep=0.2) as session:
        assert gold.same(gold.generate(model, inputs), a)
        assert gold.same(gold.generate(model, inputs), a), "every call gets a fresh cache"
    assert len(session.reports) == 2

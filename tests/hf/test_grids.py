"""What is known of the patches of an image, however it came to the model."""

import inspect

import pytest
import torch

import families
import foveate
import gold

QWEN = families.BY_NAME["qwen2-vl"]


def grids(inputs):
    """Patch grids of every image, as the vision tower merges them."""
    return [(t, h // 2, w // 2) for t, h, w in inputs["image_grid_thw"].tolist()]


def cache_of(model):
    """A cache of a method that pools within rows of patches."""
    return foveate.CompressedCache(model, foveate.snapkv(keep=0.4, window=4))


@pytest.mark.parametrize("batch", [1, 3])
def test_generate_and_forward_know_the_same_of_images(batch):
    model, inputs = QWEN.build(), QWEN.inputs(batch)
    caches = [cache_of(model), cache_of(model)]
    with torch.no_grad():
        model(**inputs, past_key_values=caches[0])
    gold.generate(model, inputs, past_key_values=caches[1], max_new_tokens=1)
    for cache in caches:
        assert [grid for row in cache.turn.kinds.grids for grid in row] == grids(inputs)
    for a, b in zip(*(cache.compressed_layers for cache in caches), strict=True):
        assert torch.equal(a.store.logical(), b.store.logical())


@pytest.mark.parametrize("options", [{"num_beams": 2}, {"do_sample": True}])
def test_copies_of_a_row_have_its_images(options):
    model, inputs = QWEN.build(), QWEN.inputs(3)
    cache = cache_of(model)
    gold.generate(
        model, inputs, past_key_values=cache, max_new_tokens=1, num_return_sequences=2, **options
    )
    rows = cache.turn.kinds.grids
    assert len(rows) == 6
    assert [grid for row in rows[::2] for grid in row] == grids(inputs)


def test_a_later_call_does_not_inherit_images():
    model, inputs = QWEN.build(), QWEN.inputs(1)
    cache = cache_of(model)
    gold.generate(model, inputs, past_key_values=cache, max_new_tokens=1)
    assert cache.grids == {}


def test_a_cache_made_among_the_arguments_is_refused_where_it_would_not_hear_of_grids():
    model, inputs = QWEN.build(), QWEN.inputs(1)
    expected = gold.generate(model, inputs, past_key_values=cache_of(model)).sequences
    options = {**inputs, "do_sample": False, "max_new_tokens": expected.shape[1]}
    options["max_new_tokens"] -= inputs["input_ids"].shape[1]
    encodes_ahead = "mm_encoder_outputs" in inspect.signature(type(model).forward).parameters
    if not encodes_ahead:  # older releases hand the grids to the forward pass
        assert torch.equal(model.generate(**options, past_key_values=cache_of(model)), expected)
        return
    with pytest.raises(foveate.CacheError, match="on a line of its own"):
        model.generate(**options, past_key_values=cache_of(model))
    cache = cache_of(model)
    assert torch.equal(model.generate(**options, past_key_values=cache), expected)

"""Parts of a method that raise, and interrupts: the model is as before, the cache says what it is.

A cache in which nothing was stored goes on as if the pass had never been; one with half of it says
so, until it is reset.
"""

import copy
import dataclasses
import gc
import pickle

import pytest
import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

import families
import foveate
import gold

LLAVA, LLAMA = families.BY_NAME["llava-1.5"], families.BY_NAME["llama"]
NAMES = pytest.mark.parametrize("name", ["aircache", "h2o", "snapkv"])


class Trap:
    """A part of a method that raises at its n-th call, and is the part itself at others."""

    evicts = False  # so that a reduce is called at all

    def __init__(self, part, at, error=ValueError):
        self.part, self.left, self.error = part, at, error

    def spring(self):
        """Count one call."""
        self.left -= 1
        if self.left == 0:
            raise self.error("trap")

    def __call__(self, *args):
        self.spring()
        return self.part(*args)

    def __getattr__(self, name):
        return getattr(self.part, name)


class RowsTrap(Trap):
    """A score that raises when it is asked for the rows it reads."""

    def rows(self, kinds):
        """Return the rows of the part."""
        self.spring()
        return self.part.rows(kinds)

    def __call__(self, *args):
        return self.part(*args)


def trapped(name, part, at, error=ValueError, kind=Trap):
    """A preset with a trap in one of its parts, and the preset."""
    method = foveate.method(name, keep=0.3)
    return dataclasses.replace(method, **{part: kind(getattr(method, part), at, error)}), method


def expected(model, inputs, method):
    """What a fresh cache gives."""
    return gold.generate(model, inputs, past_key_values=foveate.CompressedCache(model, method))


@NAMES
@pytest.mark.parametrize(
    ("part", "at", "error"),
    [
        ("score", 2, ValueError),
        ("score", 1, KeyboardInterrupt),
        ("budget", 1, ValueError),
        ("reduce", 1, ValueError),
        ("reduce", 2, KeyboardInterrupt),
    ],
)
def test_a_part_that_raises_leaves_the_model_clean_and_the_cache_unusable(name, part, at, error):
    model, inputs = LLAVA.build(attention="eager"), LLAVA.inputs(1)
    untouched = gold.generate(model, inputs)
    bad, good = trapped(name, part, at, error)
    cache = foveate.CompressedCache(model, bad)
    with pytest.raises(error, match="trap"):
        gold.generate(model, inputs, past_key_values=cache)
    assert model.config.get_text_config()._attn_implementation == "eager"
    with pytest.raises(foveate.CacheError, match="use a new cache"):
        gold.generate(model, inputs, past_key_values=cache)
    assert gold.same(gold.generate(model, inputs), untouched)
    cache.reset()
    output = gold.generate(model, inputs, past_key_values=cache)
    assert gold.same(output, expected(model, inputs, good))


@NAMES
def test_a_score_that_cannot_name_its_rows_costs_nothing(name):
    model, inputs = LLAVA.build(), LLAVA.inputs(1)
    bad, good = trapped(name, "score", 1, kind=RowsTrap)
    cache = foveate.CompressedCache(model, bad)
    with pytest.raises(ValueError, match="trap"):
        gold.generate(model, inputs, past_key_values=cache)
    output = gold.generate(model, inputs, past_key_values=cache)
    assert gold.same(output, expected(model, inputs, good))


def interrupted(model, cache, layer):
    """Run a bare forward pass of one token that is interrupted before a layer."""

    def stop(*_):
        raise KeyboardInterrupt

    hook = model.model.language_model.layers[layer].register_forward_pre_hook(stop)
    try:
        with torch.no_grad():
            model(input_ids=torch.tensor([[7]]), past_key_values=cache)
    except KeyboardInterrupt:
        return
    finally:
        hook.remove()


@pytest.mark.parametrize("layer", [0, 1])
def test_a_cache_can_be_reset_after_an_interrupt_without_generate(layer):
    model, inputs = LLAVA.build(), LLAVA.inputs(1)
    method = foveate.h2o(keep=0.3)
    cache = foveate.CompressedCache(model, method)
    with torch.no_grad():
        model(**inputs, past_key_values=cache)
    interrupted(model, cache, layer)
    cache.reset()
    output = gold.generate(model, inputs, past_key_values=cache)
    assert gold.same(output, expected(model, inputs, method))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_an_interrupted_cache_that_is_gone_leaves_nothing_behind(attention):
    model, inputs = LLAVA.build(attention=attention), LLAVA.inputs(1)
    before = ALL_ATTENTION_FUNCTIONS["sdpa"]
    cache = foveate.CompressedCache(model, foveate.aircache(keep=0.3))
    with torch.no_grad():
        model(**inputs, past_key_values=cache)
    interrupted(model, cache, 1)
    del cache
    gc.collect()
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is before
    assert model.config.get_text_config()._attn_implementation == attention


@NAMES
def test_a_chunk_that_fails_before_anything_is_stored_can_be_tried_again(name):
    model, ids = LLAMA.build(), LLAMA.inputs(1)["input_ids"]
    method, whole = foveate.method(name, keep=0.3), []
    for fails in (False, True):
        cache = foveate.CompressedCache(model, method)
        cache.expect(ids.shape[1])
        for start in range(0, ids.shape[1], 7):
            if fails and start == 14:
                hook = model.model.register_forward_pre_hook(lambda *_: 1 / 0)
                with pytest.raises(ZeroDivisionError):
                    model(input_ids=ids[:, start : start + 7], past_key_values=cache)
                hook.remove()
            with torch.no_grad():
                model(input_ids=ids[:, start : start + 7], past_key_values=cache)
        whole.append([layer.store.logical().tolist() for layer in cache.compressed_layers])
    assert whole[0] == whole[1]


def test_images_of_a_failed_pass_are_forgotten():
    family = families.BY_NAME["qwen2-vl"]
    model = family.build()
    method = foveate.snapkv(keep=0.3, window=4)
    cache = foveate.CompressedCache(model, method)
    hook = model.model.language_model.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        gold.generate(
            model, family.encode([family.prompt((3, ("image", 2), 4))]), past_key_values=cache
        )
    hook.remove()
    inputs = family.inputs(1)
    output = gold.generate(model, inputs, past_key_values=cache)
    fresh = foveate.CompressedCache(model, method)
    assert gold.same(output, gold.generate(model, inputs, past_key_values=fresh))
    assert cache.turn.kinds.grids == fresh.turn.kinds.grids != ()


def test_a_cache_cannot_be_pickled_and_says_what_can():
    model, inputs = LLAVA.build(), LLAVA.inputs(1)
    cache = foveate.CompressedCache(model, foveate.h2o(keep=0.3))
    gold.generate(model, inputs, past_key_values=cache)
    with pytest.raises(foveate.CacheError, match=r"report.*deepcopy"):
        pickle.dumps(cache)
    assert copy.deepcopy(cache).seen == cache.seen


def test_a_layer_that_keeps_nothing_is_reported():
    family = families.BY_NAME["qwen2-vl"]
    model, inputs = family.build(), family.inputs(1)
    cache = foveate.CompressedCache(model, foveate.cake(keep=0.02, window=1))
    gold.generate(model, inputs, past_key_values=cache, max_new_tokens=1)
    report = cache.report()
    assert 0 in [layer.stored for layer in report.layers]
    for layer in report.layers:
        assert len(report.kept(layer.layer, 0, 0)) <= layer.stored


def test_a_window_that_cannot_give_back_breaks_the_cache():
    family = families.BY_NAME["gemma3"]
    model, inputs = family.build(), family.inputs(1)
    cache = foveate.CompressedCache(model, foveate.aircache(keep=0.3))
    gold.generate(model, inputs, past_key_values=cache)
    with pytest.raises((RuntimeError, foveate.UnsupportedModel)):
        cache.crop(-3)
    with pytest.raises(foveate.CacheError, match="use a new cache"):
        gold.generate(model, inputs, past_key_values=cache)

"""Afterwards the model and the registries are as before, whatever happened in between."""

import copy
import gc

import pytest
from transformers import LogitsProcessorList

import families
import foveate
import gold
from families import VISUAL
from seam import cache_for
from traces import Bomb, condition

FAMILIES = pytest.mark.parametrize("family", VISUAL, ids=str)
ATTENTION = pytest.mark.parametrize("attention", ["sdpa", "eager"])


@FAMILIES
@ATTENTION
def test_context_leaves_nothing_behind(family, attention):
    model, inputs = family.build(attention=attention), family.inputs(3)
    untouched, before = gold.generate(model, inputs), condition(model)
    with foveate.compress(model, foveate.aircache(keep=0.1)):
        assert gold.distance(gold.generate(model, inputs), untouched) > 1e-2
    assert condition(model) == before
    assert gold.same(gold.generate(model, inputs), untouched)


@FAMILIES
@ATTENTION
@pytest.mark.parametrize("steps", [0, 3])
def test_exception_in_generate_leaves_nothing_behind(family, attention, steps):
    model, inputs = family.build(attention=attention), family.inputs(3)
    untouched, before = gold.generate(model, inputs), condition(model)
    with pytest.raises(KeyboardInterrupt), foveate.compress(model, foveate.aircache(keep=0.1)):
        gold.generate(model, inputs, logits_processor=LogitsProcessorList([Bomb(steps)]))
    assert condition(model) == before
    assert gold.same(gold.generate(model, inputs), untouched)


@FAMILIES
def test_exception_in_a_forward_leaves_nothing_behind(family):
    model, inputs = family.build(), family.inputs(3)
    untouched, before = gold.generate(model, inputs), condition(model)
    layer = max((m for m in model.modules() if hasattr(m, "layer_idx")), key=lambda m: m.layer_idx)

    def explode(*_):
        raise MemoryError("in the last layer")

    hook = layer.register_forward_pre_hook(explode)
    with pytest.raises(MemoryError), foveate.compress(model, foveate.aircache(keep=0.1)):
        gold.generate(model, inputs)
    hook.remove()
    assert condition(model) == before
    assert gold.same(gold.generate(model, inputs), untouched)
    with foveate.compress(model, foveate.aircache(keep=0.1)):
        gold.generate(model, inputs)  # and it can be entered again


@FAMILIES
@ATTENTION
def test_cache_leaves_nothing_behind_once_it_is_gone(family, attention):
    model, inputs = family.build(attention=attention), family.inputs(3)
    untouched, before = gold.generate(model, inputs), condition(model)
    cache = cache_for(family, model, inputs, foveate.aircache(keep=0.1))
    gold.generate(model, inputs, past_key_values=cache, return_dict_in_generate=False)
    assert gold.same(gold.generate(model, inputs), untouched), (
        "other calls of the model are untouched"
    )
    del cache
    gc.collect()
    assert condition(model) == before
    assert gold.same(gold.generate(model, inputs), untouched)


def test_nested_contexts_on_one_model_are_refused_and_the_outer_goes_on():
    family = families.BY_NAME["llava-1.5"]
    model, inputs = family.build(), family.inputs(1)
    untouched, before = gold.generate(model, inputs), condition(model)
    with foveate.compress(model, foveate.aircache(keep=0.1)) as outer:
        expected = gold.generate(model, inputs)
        with pytest.raises(foveate.CacheError), foveate.compress(model, foveate.full()):
            pass
        assert gold.same(gold.generate(model, inputs), expected)
        assert len(outer.reports) == 2
    assert condition(model) == before
    assert gold.same(gold.generate(model, inputs), untouched)


def test_a_cache_of_ones_own_inside_a_context_is_used():
    family = families.BY_NAME["llava-1.5"]
    model, inputs = family.build(), family.inputs(1)
    whole = gold.generate(model, inputs)
    with foveate.compress(model, foveate.aircache(keep=0.1)):
        cache = cache_for(family, model, inputs, foveate.full())
        assert gold.same(gold.generate(model, inputs, past_key_values=cache), whole)
        assert gold.distance(gold.generate(model, inputs), whole) > 1e-2


@pytest.mark.parametrize(
    "names", [("qwen2-vl", "gemma3"), ("llava-1.5", "llava-1.5")], ids="+".join
)
def test_two_models_in_two_contexts_do_not_disturb_each_other(names):
    pair = [families.BY_NAME[name] for name in names]
    models = [family.build(seed) for seed, family in enumerate(pair)]
    inputs = [family.inputs(3) for family in pair]
    methods = [foveate.aircache(keep=0.1), foveate.random(keep=0.5, seed=1)]
    untouched = [gold.generate(m, x) for m, x in zip(models, inputs, strict=True)]
    alone = []
    for model, x, method in zip(models, inputs, methods, strict=True):
        with foveate.compress(model, method):
            alone.append(gold.generate(model, x))
    before = condition(models[0]), condition(models[1])
    first = foveate.compress(models[0], methods[0])
    second = foveate.compress(models[1], methods[1])
    first.__enter__()
    second.__enter__()
    for model, x, expected in zip(models, inputs, alone, strict=True):
        assert gold.same(gold.generate(model, x), expected)
    first.__exit__(None, None, None)  # not in the order of entering
    assert gold.same(gold.generate(models[0], inputs[0]), untouched[0])
    assert gold.same(gold.generate(models[1], inputs[1]), alone[1])
    second.__exit__(None, None, None)
    assert [condition(model) for model in models] == list(before)
    for model, x, expected in zip(models, inputs, untouched, strict=True):
        assert gold.same(gold.generate(model, x), expected)


@FAMILIES
def test_untouched_model_inside_anothers_context_is_bit_identical(family):
    other, inputs = families.BY_NAME["qwen3-vl"].build(1), family.inputs(3)
    model = family.build()
    untouched = gold.generate(model, inputs)
    with foveate.compress(other, foveate.aircache(keep=0.1)):
        assert gold.same(gold.generate(model, inputs), untouched)
        twin = copy.deepcopy(model)
        assert gold.same(gold.generate(twin, inputs), untouched)


def test_decorator_like_reuse_of_the_same_model_many_times():
    family = families.BY_NAME["internvl"]
    model, inputs = family.build(), family.inputs(3)
    gold.generate(model, inputs)  # transformers leaves hooks of its own the first time
    before, outputs = condition(model), []
    for _ in range(3):
        with foveate.compress(model, foveate.aircache(keep=0.1)):
            outputs.append(gold.generate(model, inputs))
    assert gold.same(outputs[0], outputs[2])
    assert condition(model) == before

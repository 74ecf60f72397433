"""Eviction while decoding in every mode of `generate`, and when something goes wrong."""

import copy
from contextlib import nullcontext

import pytest
import torch
from transformers import DynamicCache

import foveate
import gold
from decoding import FAMILIES, method, missing, watched
from families import BY_NAME
from seam import cache_for

FAMILY = pytest.mark.parametrize("family", FAMILIES, ids=str)
NAME = pytest.mark.parametrize("name", ["h2o", "tova", "prefixkv"])
SAMPLING = {"do_sample": True, "temperature": 1.3, "top_k": 20}
QWEN = BY_NAME["qwen2-vl"]


@FAMILY
@NAME
@pytest.mark.parametrize(
    "options",
    [
        pytest.param(SAMPLING, id="sampling"),
        pytest.param(SAMPLING | {"num_return_sequences": 2}, id="return-sequences"),
        pytest.param({"num_beams": 3}, id="beams"),
        pytest.param(SAMPLING | {"num_beams": 2, "num_return_sequences": 2}, id="beam-sampling"),
    ],
)
def test_mode_equals_the_slow_twin(family, name, options):
    model, inputs = family.build(), family.inputs(3)
    watch = watched(family, model, inputs, method(name, 0.4, 3))
    torch.manual_seed(3)
    output = gold.generate(model, inputs, past_key_values=watch.cache, **options)
    with gold.hiding(model, *watch.stages):
        torch.manual_seed(3)
        twin = gold.generate(model, inputs, **options)
    assert torch.equal(output.sequences, twin.sequences)
    assert gold.distance(output, twin) <= gold.TOLERANCE


@NAME
def test_a_context_does_what_a_cache_does(name):
    model, inputs, made = QWEN.build(), QWEN.inputs(3), method(name, 0.4)
    cache = cache_for(QWEN, model, inputs, made)
    direct = gold.generate(model, inputs, past_key_values=cache)
    with foveate.compress(model, made) as session:
        output = gold.generate(model, inputs)
    assert gold.same(direct, output)
    assert session.report.bytes_stored == cache.report().bytes_stored


@torch.no_grad()
def steps(model, cache, logits, count, swap=0):
    """Logits [count, B, vocabulary] of greedy steps, or of steps with other tokens."""
    out = []
    for _ in range(count):
        token = (logits.argmax(-1, keepdim=True) + swap) % 190
        logits = model(input_ids=token, past_key_values=cache).logits[:, -1]
        out.append(logits)
    return torch.stack(out)


def begun(family, name, every, count=5):
    """A model, a cache after a prompt and some steps, and the last logits."""
    model, inputs = family.build(), family.inputs(1)
    cache = cache_for(family, model, inputs, method(name, 0.4, every))
    with torch.no_grad():
        logits = model(**inputs, past_key_values=cache).logits[:, -1]
    return model, cache, steps(model, cache, logits, count)[-1]


@FAMILY
@NAME
@pytest.mark.parametrize("every", [1, 4])
def test_copies_go_their_own_ways(family, name, every):
    """Copied between two looks, too: the queries since the last one are copied with it."""
    model, cache, logits = begun(family, name, every)
    deltas = getattr(getattr(model, "model", None), "rope_deltas", None)
    copied = copy.deepcopy(cache)
    other = steps(model, copied, logits, 7, swap=1)
    if deltas is not None:
        model.model.rope_deltas = deltas
    again = copy.deepcopy(cache)
    first, second = steps(model, cache, logits, 7), steps(model, again, logits, 7)
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


@NAME
def test_rows_are_taken_between_two_looks(name):
    """Rows repeated, selected and swapped mid-way are what those rows would have been."""
    model, cache, logits = begun(QWEN, name, 4)
    plain = steps(model, copy.deepcopy(cache), logits, 7)
    cache.batch_repeat_interleave(3)
    three = steps(model, copy.deepcopy(cache), logits.repeat(3, 1), 7)
    assert (three - plain).abs().max() <= gold.TOLERANCE
    cache.batch_select_indices(torch.tensor([2, 0]))
    cache.reorder_cache(torch.tensor([1, 1]))
    two = steps(model, cache, logits.repeat(2, 1), 7)
    assert (two - plain).abs().max() <= gold.TOLERANCE


@FAMILY
@NAME
def test_drafts_are_refused_and_the_model_is_as_before(family, name):
    model, inputs, made = family.build(), family.inputs(1), method(name, 0.4)
    before, held = gold.generate(model, inputs), dict(model.__dict__)
    draft = family.build(seed=1) if family.name == "llama" else None
    for options in ({"prompt_lookup_num_tokens": 3}, {"assistant_model": draft}):
        if options.get("assistant_model", 1) is None:
            continue
        cache = cache_for(family, model, inputs, made)
        with pytest.raises(foveate.UnsupportedModel, match="every=0"):
            gold.generate(model, inputs, past_key_values=cache, **options)
        if family.is_visual:
            with foveate.compress(model, made), pytest.raises(foveate.UnsupportedModel):
                gold.generate(model, inputs, **options)
        assert cache.get_seq_length() == 0
        del cache
    assert "generate" not in model.__dict__ and not model._forward_hooks
    assert {k: v for k, v in model.__dict__.items() if k[0] != "_"} == {
        k: v for k, v in held.items() if k[0] != "_"
    }
    assert gold.same(gold.generate(model, inputs), before)
    allowed = foveate.method(name, keep=0.4, every=0)
    looked = gold.generate(
        model,
        inputs,
        past_key_values=cache_for(family, model, inputs, allowed),
        prompt_lookup_num_tokens=3,
    )
    plain = gold.generate(model, inputs, past_key_values=cache_for(family, model, inputs, allowed))
    assert torch.equal(looked.sequences, plain.sequences)


class Broken(RuntimeError):
    """What a layer raises."""


def failing(model, layer):
    """Let one layer of the language model fail once."""
    calls = []

    def fail(*_):
        calls.append(1)
        if len(calls) == 1:
            raise Broken

    language = getattr(model.model, "language_model", model.model)
    return language.layers[layer].register_forward_pre_hook(fail)


@NAME
def test_a_pass_that_fails_half_way_breaks_the_cache(name):
    model, cache, logits = begun(QWEN, name, 3)
    hook = failing(model, 1)
    with pytest.raises(Broken):
        steps(model, cache, logits, 1)
    hook.remove()
    with pytest.raises(foveate.CacheError, match="new cache"):
        steps(model, cache, logits, 1)
    cache.reset()
    inputs = QWEN.inputs(1)
    fresh = cache_for(QWEN, model, inputs, method(name, 0.4, 3))
    a, b = (gold.generate(model, inputs, past_key_values=x) for x in (cache, fresh))
    assert gold.same(a, b)


@NAME
@pytest.mark.parametrize("tokens", [1, 5], ids=["step", "turn"])
def test_a_pass_that_fails_before_anything_is_stored_never_was(name, tokens):
    """Queries since the last look are still there, and the prompt's tokens count once."""
    model, cache, _ = begun(QWEN, name, 4)
    twin, ids = copy.deepcopy(cache), torch.arange(20, 20 + tokens)[None]
    hook = failing(model, 0)
    with pytest.raises(Broken), torch.no_grad():
        model(input_ids=ids, past_key_values=cache)
    hook.remove()
    runs = []
    for here in (cache, twin):
        with torch.no_grad():
            after = model(input_ids=ids, past_key_values=here).logits[:, -1]
        runs.append((steps(model, here, after, 9), [missing(x.store) for x in here.layers]))
    (a, held), (b, expected) = runs
    assert torch.equal(a, b)
    assert all(torch.equal(x, y) for x, y in zip(held, expected, strict=True))


@FAMILY
@NAME
def test_a_reset_cache_is_a_fresh_one(family, name):
    model, one, three = family.build(), family.inputs(1), family.inputs(3)
    made = method(name, 0.4, 3)
    cache = cache_for(family, model, three, made)
    if not family.is_visual:
        cache = foveate.CompressedCache(model, made)
    gold.generate(model, three, past_key_values=cache)
    cache.reset()
    assert cache.get_seq_length() == 0 and not cache.turn.following.active
    fresh = foveate.CompressedCache(model, made)
    again = gold.generate(model, one, past_key_values=cache)
    assert gold.same(again, gold.generate(model, one, past_key_values=fresh))


@NAME
@pytest.mark.parametrize("every", [1, 3])
def test_cropped_tokens_are_forgotten(name, every):
    """What drafts pushed out stays away; everything else is as the slow twin has it."""
    family = BY_NAME["llama"]
    model, inputs = family.build(), family.inputs(1)
    T, more = inputs["input_ids"].shape[1], torch.randint(5, 190, (1, 14))
    watch = watched(family, model, inputs, method(name, 0.6, every))

    @torch.no_grad()
    def feed(cache, tokens):
        return [
            model(input_ids=x.view(1, 1), past_key_values=cache).logits for x in more[0, tokens]
        ]

    def run(cache, first, second):
        with torch.no_grad(), first():
            model(**inputs, past_key_values=cache)
            feed(cache, slice(0, 6))
        cache.crop(-4)
        assert cache.get_seq_length() == T + 2
        before = len(watch.stages)
        with second():
            return torch.cat(feed(cache, slice(6, 14))), before

    mine, before = run(watch.cache, nullcontext, nullcontext)
    for i, layer in enumerate(watch.layers()):
        grown = -(-layer.store.planned.max() * (T + 10) // T) if name == "prefixkv" else 0
        most = max(int(layer.store.planned.max()), int(grown)) + every - 1
        assert all(stored[i] <= most for stored in watch.stored[-8:]), "looks come as before"
    one, two = watch.stages[:before], watch.stages[before:]
    twin, _ = run(
        DynamicCache(config=model.config),
        lambda: gold.hiding(model, *one),
        lambda: gold.hiding(model, *two),
    )
    assert (mine - twin).abs().max() <= gold.TOLERANCE

"""Eviction while decoding keeps to its room, and is nothing but hiding what went."""

import pytest
import torch

import gold
from decoding import FAMILIES, NAMES, method, positions, watched

FAMILY = pytest.mark.parametrize("family", FAMILIES, ids=str)
NAME = pytest.mark.parametrize("name", NAMES)
TWO = pytest.mark.parametrize("family", [FAMILIES[0], FAMILIES[-1]], ids=str)
KEEP, STEPS = 0.5, 24


def rooms(watch, grows, first):
    """The room of every layer after every pass."""
    out, seen = [], 0
    for tokens in watch.passes:
        seen += tokens
        planned = [layer.store.planned for layer in watch.layers()]
        lengths = first + seen - watch.passes[0]
        if grows:
            planned = [-(-x * lengths[:, None] // first[:, None]) for x in planned]
        out.append([int(x.max()) for x in planned])
    return out


@pytest.mark.parametrize(
    ("family", "every", "steps"),
    list(zip(FAMILIES, (1, 3, 1, 3), (200, 50, 50, 200), strict=True)),
    ids=str,
)
@NAME
def test_the_cache_never_outgrows_its_room(family, name, every, steps, storage):
    model, inputs = family.build(), family.inputs(3)
    made = method(name, 0.3, every)
    watch = watched(family, model, inputs, made)
    gold.generate(model, inputs, past_key_values=watch.cache, max_new_tokens=steps)
    assert len(watch.stored) == steps
    limits = rooms(watch, made.when.grows, inputs["attention_mask"].sum(-1))
    for stored, limit in zip(watch.stored, limits, strict=True):
        assert all(x <= y + every - 1 for x, y in zip(stored, limit, strict=True))
    for layer, held, stored in zip(watch.layers(), watch.nbytes[-1], watch.stored[-1], strict=True):
        B, H, _, D = layer.store.keys.shape
        empty = (layer.store.logical() < 0).expand(B, H, -1).sum() if storage != "dense" else 0
        assert held == 2 * 4 * D * (B * H * stored - empty)
    report = watch.cache.report()
    share = sum(watch.stored[-1]) / (report.layers[0].seen * len(watch.layers()))
    assert storage != "dense" or report.bytes_stored == pytest.approx(share * report.bytes_full)
    assert share < (0.45 if made.when.grows else 0.3)


@FAMILY
@NAME
@pytest.mark.parametrize(("every", "batch"), [(1, 3), (3, 1)], ids=str)
def test_what_went_is_hidden(family, name, every, batch):
    model, inputs = family.build(), family.inputs(batch)
    options = {"max_new_tokens": STEPS}
    full = gold.generate(model, inputs, **options)
    watch = watched(family, model, inputs, method(name, KEEP, every))
    output = gold.generate(model, inputs, past_key_values=watch.cache, **options)
    with gold.hiding(model, *watch.stages):
        twin = gold.generate(model, inputs, **options)
    assert gold.distance(output, twin) <= gold.TOLERANCE
    assert torch.equal(output.sequences, twin.sequences)
    assert torch.equal(output.logits[0], full.logits[0]), "the first token sees the whole prompt"
    assert gold.distance(output, full) > 1e-2, "the eviction does something"
    T = inputs["input_ids"].shape[1]
    for layer, hidden in watch.stages[-1].hidden.items():
        before = watch.stages[0].hidden[layer]
        assert (hidden[..., :T] >= before).all(), "what went stays away"
    gone = [hidden.sum() for hidden in watch.stages[-1].hidden.values()]
    assert sum(gone) > sum(hidden.sum() for hidden in watch.stages[0].hidden.values())


@FAMILY
@NAME
@pytest.mark.parametrize(("every", "keep"), [(1, 0.4), (3, 30)], ids=str)
def test_a_padded_row_is_the_row_alone(family, name, every, keep):
    """A share, and a number of tokens that the shorter rows of the batch do not have yet."""
    model, inputs, options = family.build(), family.inputs(3), {"max_new_tokens": 16}
    watch = watched(family, model, inputs, method(name, keep, every))
    together = gold.generate(model, inputs, past_key_values=watch.cache, **options)
    for row, prompt in enumerate(family.prompts(3)):
        lone = family.encode([prompt])
        own = watched(family, model, lone, method(name, keep, every))
        alone = gold.generate(model, lone, past_key_values=own.cache, **options)
        pads = inputs["input_ids"].shape[1] - len(prompt.ids)
        for step, (a, b) in enumerate(zip(watch.stages[1:], own.stages[1:], strict=True)):
            for layer in a.hidden:
                assert torch.equal(a.hidden[layer][row][:, pads:], b.hidden[layer][0]), (
                    f"row {row}, layer {layer}, step {step}"
                )
        difference = gold.logits(together)[:, row] - gold.logits(alone)[:, 0]
        assert difference.abs().max() <= gold.TOLERANCE


@TWO
@NAME
def test_the_order_of_rows_is_irrelevant(family, name):
    model, prompts, order = family.build(), family.prompts(3), [2, 0, 1]
    runs = []
    for rows in (prompts, [prompts[i] for i in order]):
        inputs = family.encode(rows)
        watch = watched(family, model, inputs, method(name, KEEP, 2))
        output = gold.generate(model, inputs, past_key_values=watch.cache)
        runs.append((gold.logits(output), watch.stages))
    (first, a), (second, b) = runs
    assert (first[:, order] - second).abs().max() <= gold.TOLERANCE
    assert all(torch.equal(a[-1].hidden[i][order], b[-1].hidden[i]) for i in a[-1].hidden)


@FAMILY
@NAME
def test_everything_kept_is_the_untouched_model(family, name):
    model, inputs = family.build(), family.inputs(3)
    untouched = gold.generate(model, inputs)
    watch = watched(family, model, inputs, method(name, 1.0))
    output = gold.generate(model, inputs, past_key_values=watch.cache)
    assert gold.same(output, untouched)
    assert not any(layer.store.compressed for layer in watch.layers())


@TWO
@NAME
def test_a_room_above_the_prompt_is_filled_and_stays_full(family, name):
    model, inputs = family.build(), family.inputs(1)
    T, options = inputs["input_ids"].shape[1], {"max_new_tokens": 40}
    made = method(name, T + 20)
    untouched = gold.generate(model, inputs, **options)
    watch = watched(family, model, inputs, made)
    output = gold.generate(model, inputs, past_key_values=watch.cache, **options)
    if made.when.grows:  # the share of the prompt that was kept is all of it
        assert gold.same(output, untouched)
        return
    assert torch.equal(gold.logits(output)[:21], gold.logits(untouched)[:21])
    assert gold.distance(output, untouched) > 1e-3
    for stage in watch.stages:
        held = [len(head) for x in stage.hidden.values() for head in positions(x)[0]]
        assert set(held) == {min(stage.length, T + 20)}

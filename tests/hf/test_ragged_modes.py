"""Every mode of `generate`, and every life of a cache, is the same on ragged and dense storage."""

import copy

import jaxtyping
import pytest
import torch
from transformers import DynamicCache

import families
import gold
from decoding import NAMES, method
from ragged import FAMILIES, METHODS, cache_of, distance, forms, run
from seam import follow, kept, lookup_beside_windows, native_turns, stage, two_turns

FAMILY = pytest.mark.parametrize("family", FAMILIES, ids=str)
BATCH = pytest.mark.parametrize("batch", [1, 3])
STORAGE = pytest.mark.parametrize("storage", ["ragged", "auto"])
SAMPLING = {"do_sample": True, "temperature": 1.3, "top_k": 20}
ADAKV = METHODS["adakv"]()


def checked(cache):
    """The cache, every layer's storage checked."""
    for layer in cache.compressed_layers:
        layer.store.check()
    return cache


@FAMILY
@BATCH
@pytest.mark.parametrize(
    "options",
    [
        pytest.param(SAMPLING | {"num_return_sequences": 2}, id="return-sequences"),
        pytest.param({"num_beams": 3, "num_return_sequences": 2}, id="beams-returned"),
        pytest.param(SAMPLING | {"num_beams": 2}, id="beam-sampling"),
        pytest.param({"repetition_penalty": 1.4}, id="repetition-penalty"),
    ],
)
def test_modes_agree(family, batch, options):
    model, inputs = family.build(), family.inputs(batch)
    (dense, _), (ragged, cache) = (
        run(family, model, inputs, ADAKV, storage, **options) for storage in ("dense", "ragged")
    )
    assert distance(ragged, dense) <= gold.TOLERANCE and forms(cache) == {"ragged"}


@FAMILY
def test_drafts_are_taken_back(family):
    """Prompt lookup: several queries at once, and rejected tokens cut off again."""
    model, inputs = family.build(), family.inputs(1)
    options = {"max_new_tokens": 20, "prompt_lookup_num_tokens": 3}
    gold.untouched(model, inputs, **options)
    greedy, _ = run(family, model, inputs, ADAKV, "dense", max_new_tokens=20)
    with lookup_beside_windows(family):
        drafted, cache = run(family, model, inputs, ADAKV, "ragged", **options)
    assert distance(drafted, greedy) <= gold.TOLERANCE and forms(cache) == {"ragged"}


@FAMILY
@BATCH
def test_a_prompt_in_chunks_is_the_whole_prompt(family, batch):
    if families.VERSION.major < 5:
        pytest.skip("old releases chunk around the model's hooks")
    model, inputs = family.build(), family.inputs(batch)
    gold.untouched(model, inputs, prefill_chunk_size=7)
    (dense, _), (ragged, _) = (
        run(family, model, inputs, ADAKV, storage, prefill_chunk_size=7)
        for storage in ("dense", "ragged")
    )
    assert distance(ragged, dense) <= gold.TOLERANCE


@FAMILY
@BATCH
@STORAGE
@pytest.mark.parametrize("recipe", [(6,), (4, ("image", 1), 5)], ids=["text", "image"])
def test_two_turns_agree(family, batch, storage, recipe):
    """The second turn is read over the flat prefix, and packed behind it where it has images."""
    if len(recipe) > 1 and "qwen" in family.name:
        pytest.skip("cannot place later images in generate")
    model, inputs, runs = family.build(), family.inputs(batch), []
    native_turns(family, model, inputs, recipe)  # which not every release can read
    for form in ("dense", storage):
        cache = cache_of(family, model, inputs, ADAKV, form)
        first, _, _, second = two_turns(family, model, inputs, cache, recipe)
        runs.append((first, second, checked(cache).report()))
    (a, b, dense), (c, d, report) = runs
    assert distance(c, a) <= gold.TOLERANCE and distance(d, b) <= gold.TOLERANCE
    for layer in family.full_layers:
        rows, heads = len(inputs["input_ids"]), 2 if family.name != "gemma3" else 1
        for row in range(rows):
            for head in range(heads):
                assert torch.equal(report.kept(layer, row, head), dense.kept(layer, row, head))
    assert report.bytes_stored < dense.bytes_stored


@pytest.mark.parametrize("family", [FAMILIES[1], FAMILIES[3]], ids=str)
def test_a_third_turn_in_chunks_agrees(family):
    model, inputs, runs = family.build(), family.inputs(3), []
    for form in ("dense", "ragged"):
        cache = cache_of(family, model, inputs, ADAKV, form)
        _, _, turn, second = two_turns(family, model, inputs, cache, (5,))
        more = follow(family, turn, second.sequences, (9,), 70)
        ids, mask = more["input_ids"], more["attention_mask"]
        logits = []
        with torch.no_grad():
            for stop in range(cache.get_seq_length() + 3, ids.shape[1] + 1, 3):
                seen = cache.get_seq_length()
                out = model(
                    input_ids=ids[:, seen:stop],
                    attention_mask=mask[:, :stop],
                    past_key_values=cache,
                )
                logits.append(out.logits)
        runs.append(torch.cat(logits, 1))
        checked(cache)
    assert (runs[0] - runs[1]).abs().max() <= gold.TOLERANCE


@FAMILY
def test_copies_and_crops_agree(family):
    model, inputs, runs = family.build(), family.inputs(3), []
    native_turns(family, model, inputs, (6,))  # which not every release can read
    for form in ("dense", "ragged"):
        cache = cache_of(family, model, inputs, ADAKV, form)
        with torch.no_grad():
            model(**inputs, past_key_values=cache)
        other = copy.deepcopy(cache)
        turn = follow(family, inputs, inputs["input_ids"], (6,), 1)
        deltas = getattr(getattr(model, "model", None), "rope_deltas", None)
        if deltas is not None:
            model.model.rope_deltas = deltas
        answer = gold.generate(model, turn, past_key_values=other)
        assert checked(cache).get_seq_length() == inputs["input_ids"].shape[1]
        if family.name == "gemma3":  # windows do not come back
            runs.append((answer,))
            continue
        checked(other).crop(-6)
        checked(other)
        prefix = turn["input_ids"].shape[1] + gold.STEPS - 7
        sizes = [layer.bytes_stored for layer in other.report().layers]
        ids = answer.sequences[:, : prefix + 1]
        rest = {"input_ids": ids, "attention_mask": turn["attention_mask"]}
        rest["attention_mask"] = torch.nn.functional.pad(
            turn["attention_mask"], (0, ids.shape[1] - turn["attention_mask"].shape[1]), value=1
        )
        if "mm_token_type_ids" in inputs:
            rest["mm_token_type_ids"] = torch.zeros_like(ids)
        runs.append((answer, gold.generate(model, rest, past_key_values=other), sizes))
    for a, b in zip(runs[0][:2], runs[1][:2], strict=True):
        assert distance(b, a) <= gold.TOLERANCE


def test_a_crop_into_the_prompt_cuts_the_prefix():
    family = families.BY_NAME["internvl"]
    model, inputs = family.build(), family.inputs(1)
    length = inputs["input_ids"].shape[1] - 12
    ids, runs = inputs["input_ids"], []
    turn = {"input_ids": torch.cat([ids[:, :length], torch.full_like(ids[:, length:], 7)], 1)}
    turn["attention_mask"] = torch.ones_like(ids)
    for form in ("dense", "ragged"):
        cache = cache_of(family, model, inputs, ADAKV, form)
        with torch.no_grad():
            model(**inputs, past_key_values=cache)
        cache.crop(-12)
        assert checked(cache).get_seq_length() == length
        runs.append(gold.generate(model, turn, past_key_values=cache))
    assert distance(runs[1], runs[0]) <= gold.TOLERANCE
    cache.crop(-cache.get_seq_length())
    fresh = cache_of(family, model, inputs, ADAKV, "ragged")
    again = gold.generate(model, inputs, past_key_values=cache)
    assert gold.same(again, gold.generate(model, inputs, past_key_values=fresh))


@pytest.mark.parametrize("family", [FAMILIES[0], FAMILIES[3]], ids=str)
@pytest.mark.parametrize("name", NAMES)
@STORAGE
def test_eviction_while_decoding_agrees(family, name, storage):
    model, inputs, made = family.build(), family.inputs(3), method(name, 0.4, 2)
    dense, other = run(family, model, inputs, made, "dense", max_new_tokens=24)
    output, cache = run(family, model, inputs, made, storage, max_new_tokens=24)
    assert distance(output, dense) <= gold.TOLERANCE
    a, b = (kept(family, model, inputs, x.report()) for x in (cache, other))
    assert all(torch.equal(a[layer], b[layer]) for layer in a)
    assert cache.report().bytes_stored <= other.report().bytes_stored


def test_everything_stored_first_and_evicted_later_goes_over():
    """A room above the prompt: nothing is packed, and heads differ only while decoding."""
    family = families.BY_NAME["llama"]
    model, inputs = family.build(), family.inputs(3)
    T = int(inputs["attention_mask"].sum(-1).max())
    for storage in ("ragged", "auto"):
        made = method("h2o", T + 4)
        dense, other = run(family, model, inputs, made, "dense", max_new_tokens=8)
        output, cache = run(family, model, inputs, made, storage, max_new_tokens=8)
        assert distance(output, dense) <= gold.TOLERANCE and "ragged" in forms(cache)
        assert cache.report().bytes_stored < other.report().bytes_stored


@FAMILY
def test_rows_alone_and_together_agree_with_hiding(family):
    """Beams of three rows with mixed images, against the full cache with positions hidden."""
    model, inputs = family.build(), family.inputs(3)
    output, cache = run(family, model, inputs, ADAKV, "ragged", num_beams=2)
    with gold.hiding(model, stage(family, model, inputs, cache.report(), 2)):
        twin = gold.generate(model, inputs, num_beams=2)
    assert distance(output, twin) <= gold.TOLERANCE
    full = gold.generate(model, inputs, num_beams=2, past_key_values=DynamicCache())
    assert gold.distance(output, full) > 1e-2


@pytest.mark.filterwarnings("ignore")  # of torch, about what it compiles
def test_a_model_that_its_user_compiled_attends_alike(monkeypatch):
    family = families.BY_NAME["llama"]
    model, inputs = family.build(), family.inputs(3)

    def steps(compiled):
        cache = cache_of(family, model, inputs, ADAKV, "ragged")
        if compiled:
            monkeypatch.setattr(model, "forward", torch.compile(model.forward, backend="eager"))
        logits, mask = [], inputs["attention_mask"]
        with torch.no_grad():
            model(**inputs, past_key_values=cache)
            for token in (7, 8, 9):
                mask = torch.nn.functional.pad(mask, (0, 1), value=1)
                ids = torch.full((3, 1), token)
                out = model(input_ids=ids, attention_mask=mask, past_key_values=cache)
                logits.append(out.logits[:, -1])
        checked(cache)
        return torch.stack(logits)

    alone = steps(compiled=False)
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        torch.testing.assert_close(steps(compiled=True), alone, atol=1e-5, rtol=0)
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
        torch._dynamo.reset()

"""Every mode of `generate` works on a compressed cache, and equals the slow twin in that mode."""

import pytest
import torch
from packaging.version import Version
from transformers.generation.streamers import BaseStreamer

import families
import foveate
import gold
from seam import (
    MODES,
    by_cache,
    by_context,
    check_selection,
    compressed,
    kept,
    lookup_beside_windows,
    stage,
)

FAMILIES = pytest.mark.parametrize("family", [families.BY_NAME[name] for name in MODES], ids=str)
BATCHES = pytest.mark.parametrize("batch", [1, 3])
SAMPLING = {"do_sample": True, "temperature": 1.3, "top_k": 20}


@FAMILIES
@BATCHES
@pytest.mark.parametrize("entry", [by_context, by_cache])
@pytest.mark.parametrize(
    ("options", "copies"),
    [
        pytest.param(SAMPLING, 1, id="sampling"),
        pytest.param(SAMPLING | {"num_return_sequences": 2}, 2, id="return-sequences"),
        pytest.param({"num_beams": 3}, 3, id="beams"),
        pytest.param({"num_beams": 3, "num_return_sequences": 2}, 3, id="beams-returned"),
        pytest.param(SAMPLING | {"num_beams": 2}, 2, id="beam-sampling"),
        pytest.param({"repetition_penalty": 1.4}, 1, id="repetition-penalty"),
    ],
)
def test_mode_equals_the_slow_twin(family, batch, entry, options, copies):
    model, inputs, method = family.build(), family.inputs(batch), foveate.aircache(keep=0.2)
    torch.manual_seed(3)
    output, report = entry(family, model, inputs, method, **options)
    with gold.hiding(model, stage(family, model, inputs, report, copies)):
        torch.manual_seed(3)
        twin = gold.generate(model, inputs, **options)
    torch.manual_seed(3)
    full = gold.generate(model, inputs, **options)
    assert torch.equal(output.sequences, twin.sequences)
    assert gold.distance(output, twin) <= gold.TOLERANCE
    assert gold.distance(output, full) > 1e-2
    masks = kept(family, model, inputs, report, copies).values()
    if Version("5.20") <= families.VERSION:  # before, copies of a row got each other's images
        assert all(torch.equal(mask[::copies], mask[copies - 1 :: copies]) for mask in masks)


@FAMILIES
@BATCHES
@pytest.mark.parametrize(
    "options", [{}, {"num_beams": 2}, {"prompt_lookup_num_tokens": 3}], ids=str
)
def test_mode_with_everything_kept_is_bit_identical(family, batch, options):
    if batch > 1 and "prompt_lookup_num_tokens" in options:
        pytest.skip("transformers has prompt lookup for one row only")
    model, inputs = family.build(), family.inputs(batch)
    untouched = gold.untouched(model, inputs, **options)
    with lookup_beside_windows(family):
        output, _ = by_context(family, model, inputs, foveate.aircache(keep=1.0), **options)
    assert gold.same(output, untouched)


@FAMILIES
def test_prompt_lookup_equals_greedy(family):
    model, inputs, method = family.build(), family.inputs(1), foveate.aircache(keep=0.2)
    gold.untouched(model, inputs, max_new_tokens=20, prompt_lookup_num_tokens=3)
    greedy, report = by_context(family, model, inputs, method, max_new_tokens=20)
    with lookup_beside_windows(family):
        looked, again = by_context(
            family, model, inputs, method, max_new_tokens=20, prompt_lookup_num_tokens=3
        )
    assert torch.equal(greedy.sequences, looked.sequences)
    assert gold.distance(greedy, looked) <= gold.TOLERANCE
    assert torch.equal(report.kept(family.full_layers[0]), again.kept(family.full_layers[0]))


@FAMILIES
def test_prompt_lookup_with_drafts_in_the_first_forward(family):
    """A prompt that repeats itself is drafted from at once; the budget is the prompt's."""
    model = family.build()
    prompt = family.prompt((3, ("image", 0), 5))
    tail = prompt.ids[-4:]
    prompt = families.Prompt(prompt.ids + tail * 3, prompt.images)
    inputs, method = family.encode([prompt]), foveate.aircache(keep=0.2)
    gold.untouched(model, inputs, prompt_lookup_num_tokens=3)
    with lookup_beside_windows(family):
        looked, report = by_context(family, model, inputs, method, prompt_lookup_num_tokens=3)
    check_selection(family, model, inputs, report, 0.2)
    assert looked.sequences.shape[1] == len(prompt.ids) + gold.STEPS
    full = gold.generate(model, inputs)
    assert (
        torch.equal(looked.logits[0], full.logits[0])
        or (looked.logits[0] - full.logits[0]).abs().max() <= gold.TOLERANCE
    )


class Recorder(BaseStreamer):
    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.ended = False

    def put(self, value: torch.Tensor) -> None:
        self.tokens += value.flatten().tolist()

    def end(self) -> None:
        self.ended = True


@FAMILIES
@pytest.mark.parametrize("entry", [by_context, by_cache])
def test_streamer_sees_every_token(family, entry):
    model, inputs, method = family.build(), family.inputs(1), foveate.aircache(keep=0.2)
    streamer = Recorder()
    output, _ = entry(family, model, inputs, method, streamer=streamer)
    plain, _ = entry(family, model, inputs, method)
    assert gold.same(output, plain)
    assert streamer.tokens == output.sequences[0].tolist() and streamer.ended


def in_chunks(family, model, inputs, method, chunk):
    """A compressed run with chunked prefill; old releases chunk around the model's hooks."""
    try:
        return compressed(family, model, inputs, method, prefill_chunk_size=chunk)
    except foveate.UnsupportedModel as refusal:
        assert "chunk" in str(refusal) and Version("5.4") > families.VERSION
        pytest.skip(str(refusal))


@pytest.mark.parametrize("family", families.COMPRESSIBLE, ids=str)
@BATCHES
@pytest.mark.parametrize("chunk", [7, 16])
def test_chunked_prefill_equals_whole(family, batch, chunk):
    model, inputs, method = family.build(), family.inputs(batch), foveate.aircache(keep=0.2)
    full = gold.untouched(model, inputs, prefill_chunk_size=chunk)
    if gold.distance(full, gold.generate(model, inputs)) > gold.TOLERANCE:
        pytest.skip("chunks change the untouched model: images attend both ways within a forward")
    whole, report = compressed(family, model, inputs, method)
    chunked, told = in_chunks(family, model, inputs, method, chunk)
    check_selection(family, model, inputs, told, 0.2)
    assert (chunked.logits[0] - full.logits[0]).abs().max() <= gold.TOLERANCE
    masks, others = kept(family, model, inputs, report), kept(family, model, inputs, told)
    assert all(torch.equal(masks[layer], others[layer]) for layer in masks)
    assert gold.distance(whole, chunked) <= gold.TOLERANCE


@pytest.mark.parametrize("name", ["adakv", "foveate"])
@pytest.mark.parametrize("chunk", [5, 7])
def test_chunks_that_cut_a_picture_leave_its_rows_to_be_pooled_over(name, chunk):
    family = families.BY_NAME["qwen2-vl"]
    method = foveate.method(name, keep=0.3)
    for row, recipe in enumerate(families.base.THREE):
        model, inputs = family.build(), family.encode([family.prompt(recipe, row)])
        gold.untouched(model, inputs, prefill_chunk_size=chunk)
        _, report = compressed(family, model, inputs, method)
        _, told = in_chunks(family, model, inputs, method, chunk)
        masks, others = kept(family, model, inputs, report), kept(family, model, inputs, told)
        assert all(torch.equal(masks[layer], others[layer]) for layer in masks)


@pytest.mark.parametrize("family", families.COMPRESSIBLE, ids=str)
def test_last_chunk_of_one_token_is_not_a_decode_step(family):
    model, inputs, method = family.build(), family.inputs(1), foveate.aircache(keep=0.2)
    length = inputs["input_ids"].shape[1]
    chunk = next(n for n in range(length - 1, 2, -1) if length % n == 1)
    full = gold.untouched(model, inputs, prefill_chunk_size=chunk)
    if gold.distance(full, gold.generate(model, inputs)) > gold.TOLERANCE:
        pytest.skip("chunks change the untouched model: images attend both ways within a forward")
    output, report = in_chunks(family, model, inputs, method, chunk)
    check_selection(family, model, inputs, report, 0.2)
    assert (output.logits[0] - full.logits[0]).abs().max() <= gold.TOLERANCE
    with gold.hiding(model, stage(family, model, inputs, report)):
        twin = gold.generate(model, inputs)
    assert gold.distance(output, twin) <= gold.TOLERANCE


@FAMILIES
def test_stopping_early_and_logits_processors_still_work(family):
    model, inputs, method = family.build(), family.inputs(3), foveate.aircache(keep=0.2)
    long, _ = by_context(family, model, inputs, method)
    third = long.sequences[0, -gold.STEPS + 2].item()
    short, _ = by_context(family, model, inputs, method, eos_token_id=third)
    row = short.sequences[0, inputs["input_ids"].shape[1] :].tolist()
    assert third in row and set(row[row.index(third) + 1 :]) <= {families.PAD}

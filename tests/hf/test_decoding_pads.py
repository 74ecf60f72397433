"""Pads in later turns, and rows that had finished: neither stored for long nor looked at."""

import pytest
import torch
from transformers import DynamicCache

import families
import foveate
import gold
from decoding import FAMILIES, method, watched
from seam import follow

NAME = pytest.mark.parametrize("name", ["h2o", "tova", "streaming", "roco"])
EVERY = pytest.mark.parametrize("every", [1, 3])


def padded(family, model, inputs, sequences, start, count, rows=(1,)):
    """A second turn of six tokens whose mask hides `count` tokens of some rows from `start` on."""
    turn = follow(family, inputs, sequences, (6,))
    for row in rows:
        turn["attention_mask"][row, start : start + count] = 0
    return turn


def run(family, model, inputs, cache, start, count, **options):
    """The second output of two turns."""
    first = gold.generate(model, inputs, past_key_values=cache)
    at = first.sequences.shape[1] + start
    turn = padded(family, model, inputs, first.sequences, at, count)
    return turn, gold.generate(model, turn, past_key_values=cache, **options)


@pytest.mark.parametrize("family", [FAMILIES[0], FAMILIES[-1]], ids=str)
@NAME
@EVERY
@pytest.mark.parametrize(("start", "count"), [(-5, 5), (0, 2), (-3, 4)], ids=str)
def test_hidden_tokens_are_as_in_the_slow_twin_and_go(family, name, every, start, count):
    """The end of a row that had finished, pads before its next question, or both."""
    model, inputs = family.build(), family.inputs(3)
    watch = watched(family, model, inputs, method(name, 0.5, every))
    turn, second = run(family, model, inputs, watch.cache, start, count)
    with gold.hiding(model, *watch.stages):
        full = DynamicCache(config=model.config)
        _, twin = run(family, model, inputs, full, start, count)
    assert gold.distance(second, twin) <= gold.TOLERANCE
    hidden = turn["attention_mask"] == 0
    for found in watch.hidden().values():
        assert found[..., : hidden.shape[1]][hidden[:, None].expand(-1, found.shape[1], -1)].all()


@pytest.mark.parametrize("made", [lambda: foveate.random(keep=0.3), lambda: method("h2o", 0.5)])
def test_a_last_chunk_of_one_token_does_not_see_pads_of_its_turn(made):
    family = families.BY_NAME["llama"]
    model, inputs = family.build(), family.inputs(3)
    cache = foveate.CompressedCache(model, made(), visual_mask=inputs["input_ids"] > 60)
    watch = watched(family, model, inputs, made())
    watch.cache.visual_mask = cache.visual_mask
    chunks = {"prefill_chunk_size": 7}  # 8 tokens are new: the last of the first turn, and a prompt
    try:
        _, second = run(family, model, inputs, watch.cache, 0, 2, **chunks)
    except (foveate.UnsupportedModel, ValueError) as refusal:
        pytest.skip(str(refusal))
    assert watch.passes[-gold.STEPS - 1 : -gold.STEPS + 1] == [7, 1]
    with gold.hiding(model, *watch.stages):
        full = DynamicCache(config=model.config)
        _, twin = run(family, model, inputs, full, 0, 2, **chunks)
    assert gold.distance(second, twin) <= gold.TOLERANCE
    assert torch.equal(second.sequences, twin.sequences)

"""What an engine expects tokens to cost is what caches hold, windows and states included."""

import pytest
import torch

from engines import METHODS, Heard, Prompter, ask, engine_of, made, model_of, plain, ready, run
from families import BY_NAME
from foveate.errors import UnsupportedModel
from foveate.hf.attach import Lease
from foveate.hf.cache import CompressedCache
from foveate.hf.rows import Rows
from foveate.serve.engine.footprint import Footprint, held


@pytest.mark.parametrize("name", ["qwen2-vl", "llava-1.5", "gemma3", "qwen3.5"])
@pytest.mark.parametrize("number", [0, 2])
def test_a_prompt_takes_what_was_expected(name, number):
    family = BY_NAME[name]
    model = model_of(family)
    footprint = Footprint.measured(model, Lease(model))
    cache = CompressedCache(model, made("full"))
    inputs = Prompter(family).inputs(number)
    model.generate(**inputs, past_key_values=cache, max_new_tokens=3, do_sample=False)
    expected, there = footprint.of(cache.seen), held(cache)
    if footprint.windows:  # layers that forget keep one token less than they see
        windows = sum(size for size, _ in footprint.windows)
        assert there <= expected <= there + 2 * windows
        assert footprint.of(1000) == footprint.of(999) + footprint.token
    else:
        assert expected == there
    assert (footprint.alone is None) == (name in ("qwen2-vl", "llava-1.5"))
    assert (footprint.fixed > 0) == (name == "qwen3.5")


def test_windows_take_what_was_expected_while_a_text_is_read():
    family = BY_NAME["gemma3"]
    engine = engine_of(family, model_of(family), chunk=15, max_new_tokens=1)
    ids = torch.arange(31)[None] % 7 + 100
    text = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    engine.processor.inputs = lambda number: dict(text)
    heard = Heard()
    request = engine.submit(ask(0, "full"), heard)
    ready(engine)
    expected = request.reserved
    while engine.step():
        assert engine.stats().kv_bytes <= expected
    engine.stop()
    assert heard.end.kv["chunks"] == (3 if heard.end.kv["whole"] is None else 1)


def test_a_model_that_cannot_decode_together_answers_alone(monkeypatch):
    def refuse(*_: object) -> None:
        raise UnsupportedModel("a mask for every query head")

    monkeypatch.setattr(Rows, "step", refuse)
    family = BY_NAME["llava-1.5"]
    model = model_of(family)
    engine = engine_of(family, model)
    assert "a mask for every query head" in engine.notes[0]
    heard = [Heard() for _ in METHODS]
    for number, (name, sink) in enumerate(zip(METHODS, heard, strict=True)):
        engine.submit(ask(number, name), sink)
    run(engine)
    engine.stop()
    for number, (name, sink) in enumerate(zip(METHODS, heard, strict=True)):
        assert sink.ids == plain(family, model, number, name)
        assert "a mask for every query head" in sink.end.kv["alone"]


def test_a_model_keeps_what_it_remembered_before_it_was_tried():
    family = BY_NAME["qwen2-vl"]
    model = model_of(family)
    model.model.rope_deltas = remembered = torch.tensor([[5]])
    engine = engine_of(family, model)
    assert model.model.rope_deltas is remembered
    engine.stop()

"""An engine says to everybody what `generate` says to each alone, whoever else is asking."""

import gc
import threading
import weakref
from functools import cache
from typing import Any

import pytest
import torch

from engines import (
    METHODS,
    Heard,
    ask,
    engine_of,
    letters,
    made,
    model_of,
    pieces,
    plain,
    ready,
    run,
)
from families import BY_NAME, VERSION
from foveate import tiny
from foveate.cli.answers import prepare
from foveate.cli.models import Loaded
from foveate.hf.session import compress
from foveate.methods import method as method_named
from foveate.serve.engine import Engine
from foveate.serve.engine.asking import Ask, Done
from foveate.tiny.documents import document

FAMILIES = [BY_NAME[x] for x in ("qwen2-vl", "qwen3-vl", "llava-1.5", "gemma3")]
EVERY = pytest.mark.parametrize("family", FAMILIES, ids=str)


def answered(engine: Engine, asks: list[Ask]) -> list[Heard]:
    """What everybody hears who asks at once."""
    heard = [Heard() for _ in asks]
    for one, sink in zip(asks, heard, strict=True):
        engine.submit(one, sink)
    run(engine)
    return heard


ASKED = [(number, name) for number, name in enumerate([*METHODS, "foveate", "adakv"])]


@cache
def expected_of(family: Any) -> list[list[int]]:
    """What everybody should hear who asks at once."""
    model = model_of(family)
    return [plain(family, model, number, name) for number, name in ASKED]


@EVERY
@pytest.mark.parametrize("chunk", [None, 7])
def test_everybody_hears_what_generate_says_alone(family, chunk):
    model, asked, expected = model_of(family), ASKED, expected_of(family)
    engine = engine_of(family, model, chunk=chunk, most=6)
    heard = answered(engine, [ask(number, name) for number, name in asked])
    assert [sink.ids for sink in heard] == expected
    for (number, name), sink in zip(asked, heard, strict=True):
        end = sink.end
        assert isinstance(end, Done) and (end.reason, end.completion_tokens) == ("length", 10)
        assert sink.text == letters(sink.ids)
        alone = name == "h2o" or family.name == "gemma3"
        assert (end.kv["alone"] is not None) == alone, number
        prompt = end.prompt_tokens
        chunked = chunk is not None and end.kv["whole"] is None
        assert end.kv["chunks"] == (-(-prompt // chunk) if chunked else 1)
        if chunk is not None and VERSION.release >= (5, 15) and family.name != "gemma3":
            assert chunked
    engine.stop()


def test_nobody_waits_while_a_long_prompt_is_read():
    family = BY_NAME["qwen2-vl"]
    engine = engine_of(family, model_of(family), chunk=3, max_new_tokens=100)
    early = engine.submit(ask(4, "full"), Heard())
    while not early.tokens:
        engine.step()
    late = engine.submit(ask(0, "aircache"), Heard())
    ready(engine)
    steps = 0
    while not late.tokens:
        steps, before = steps + 1, early.tokens
        engine.step()
        assert early.tokens == before + 1
    assert steps == late.kv["chunks"]
    if VERSION.release >= (5, 15):
        assert steps > 10
    engine.stop()


def test_the_kv_object_says_what_the_prompt_s_report_says():
    family = BY_NAME["qwen2-vl"]
    model = model_of(family)
    engine = engine_of(family, model, chunk=None)
    for number, name in enumerate(METHODS):
        (heard,) = answered(engine, [ask(number, name, max_new_tokens=1)])
        report = plain(family, model, number, name, tokens=1, report=True)
        names = ("method", "kept_visual", "total_visual", "kept_text", "total_text")
        sizes = ("bytes_full",) if name == "h2o" else ("bytes_full", "bytes_stored")
        for key in (*names, *sizes):
            assert heard.end.kv[key] == getattr(report, key)
        assert heard.end.visual_tokens == report.total_visual
        assert heard.end.prompt_tokens == report.total_visual + report.total_text
    engine.stop()


@pytest.fixture(scope="module")
def embedded() -> Loaded:
    return Loaded("embedded", *tiny.load())


def question(seed: int) -> tuple[Any, str]:
    page = document(seed, grid=(6 + seed % 4, 8), pages=1 + seed % 2)
    return list(page.pages), page.questions[seed % len(page.questions)].text


def chat(seed: int) -> list[dict[str, Any]]:
    pages, text = question(seed)
    content = [{"type": "image", "image": page} for page in pages]
    return [{"role": "user", "content": [*content, {"type": "text", "text": text}]}]


def test_the_embedded_model_answers_sixteen_as_it_answers_one(embedded):
    names = ("full", "aircache", "foveate", "snapkv", "pyramidkv", "h2o", "adakv", "lookm")
    methods = [method_named(n, **({} if n == "full" else {"keep": 0.3})) for n in names] * 2
    expected = []
    for seed, method in enumerate(methods):
        inputs = prepare(embedded, *question(seed))
        with compress(embedded.model, method):
            ids = embedded.model.generate(**inputs, max_new_tokens=12, do_sample=False)
        expected.append(ids[0, inputs["input_ids"].shape[1] :].tolist())
    engine = Engine(embedded.model, embedded.processor, methods[1], chunk=32, max_new_tokens=12)
    asks = [Ask(chat(i), method=x, logprobs=0) for i, x in enumerate(methods)]
    heard = answered(engine, asks)
    for sink, ids in zip(heard, expected, strict=True):
        ended = sink.end.reason == "stop"
        assert sink.ids == (ids[:-1] if ended else ids)
        assert ended == (ids[-1] == embedded.model.generation_config.eos_token_id)
        assert sink.end.completion_tokens == len(ids)
        assert sink.text == embedded.processor.decode(torch.tensor(ids))
    full, default = answered(engine, [Ask(chat(3), full=True), Ask(chat(3))])
    assert full.end.kv["kept_visual"] == full.end.kv["total_visual"]
    assert default.end.kv["method"] == repr(methods[1])
    engine.stop()


def test_a_seed_gives_the_same_words_in_any_company():
    family = BY_NAME["qwen2-vl"]
    model = model_of(family)
    engine = engine_of(family, model)
    mine = {"temperature": 1.3, "top_p": 0.9, "seed": 7}
    (alone,) = answered(engine, [ask(0, "aircache", **mine)])
    others = [ask(i, name, temperature=2.0) for i, name in enumerate(METHODS)]
    among = answered(engine, [*others[:3], ask(0, "aircache", **mine), *others[3:]])[3]
    assert alone.ids == among.ids
    (greedy,) = answered(engine, [ask(0, "aircache", temperature=0.0, seed=7)])
    assert greedy.ids == plain(family, model, 0, "aircache") != alone.ids
    seeds = [ask(0, "aircache", **{**mine, "seed": seed}) for seed in range(4)]
    assert len({tuple(sink.ids) for sink in answered(engine, seeds)}) == 4
    (narrow,) = answered(engine, [ask(0, "aircache", temperature=1.0, top_p=1e-6, seed=1)])
    assert narrow.ids == greedy.ids
    engine.stop()


def test_log_probabilities_are_those_of_the_raw_logits():
    family = BY_NAME["llava-1.5"]
    model = model_of(family)
    engine = engine_of(family, model)
    many = [ask(0, "foveate", logprobs=3), ask(2, "adakv", logprobs=5, temperature=1.0, seed=3)]
    for one, number, name in zip(answered(engine, many), (0, 2), ("foveate", "adakv"), strict=True):
        raw = plain(family, model, number, name, said=one.ids)
        for chance, logits in zip(one.chances, raw, strict=True):
            logs = logits.log_softmax(-1)
            assert abs(chance.logprob - float(logs[chance.token])) < 1e-4
            top = logs.topk(len(chance.others))
            assert [x.token for x in chance.others] == top.indices.tolist()
            assert all(x.text == letters([x.token]) for x in (chance, *chance.others))
    engine.stop()


def test_an_answer_ends_before_a_stop_string_and_at_any_of_several_ends():
    family = BY_NAME["qwen2-vl"]
    model = model_of(family)
    ids = plain(family, model, 0, "aircache")
    engine = engine_of(family, model)
    stop = letters(ids[4:6])
    (heard,) = answered(engine, [ask(0, "aircache", stop=("nowhere", stop))])
    assert heard.text == letters(ids[:4]) and heard.end.reason == "stop"
    assert heard.end.completion_tokens == 6
    assert heard.ids == ids[:4]
    assert pieces(heard) == [letters([token]) for token in ids[:4]]
    engine.stop()
    model.generation_config.eos_token_id = [1, ids[3]]
    engine = engine_of(family, model)
    (heard,) = answered(engine, [ask(0, "aircache")])
    assert (heard.text, heard.end.reason) == (letters(ids[:3]), "stop")
    engine.stop()


WISHES = [
    ("repetition_penalty", lambda before: 3.0),
    ("no_repeat_ngram_size", lambda before: 1),
    ("bad_words_ids", lambda before: [before[:1], before[2:4]]),
    ("sequence_bias", lambda before: [[before[:1], -1e4]]),
]


@pytest.mark.parametrize(("option", "value"), WISHES, ids=lambda x: x if isinstance(x, str) else "")
def test_what_the_generation_config_says_of_tokens_is_heeded(option, value):
    family = BY_NAME["llava-1.5"]
    model = model_of(family)
    before = plain(family, model, 1, "aircache")
    setattr(model.generation_config, option, value(before))
    expected = plain(family, model, 1, "aircache")
    engine = engine_of(family, model)
    (heard,) = answered(engine, [ask(1, "aircache")])
    engine.stop()
    assert heard.ids == expected != before
    assert engine.notes == ()


@pytest.mark.parametrize("name", ["aircache", "h2o"])  # together with others, and alone
def test_stop_strings_of_the_generation_config_are_heeded(embedded, monkeypatch, name):
    config, asked = embedded.model.generation_config, Ask(chat(1), method=made(name))
    engine = Engine(embedded.model, embedded.processor)
    (plain,) = answered(engine, [asked])
    stop = plain.text[-1]
    monkeypatch.setattr(config, "stop_strings", [stop])
    (heard,) = answered(engine, [asked])
    engine.stop()
    assert (heard.text, heard.end.reason) == (plain.text.partition(stop)[0], "stop")
    assert heard.end.completion_tokens < plain.end.completion_tokens


def test_what_is_not_heeded_is_told():
    family = BY_NAME["llava-1.5"]
    model = model_of(family)
    model.generation_config.min_new_tokens = 4
    engine = engine_of(family, model)
    engine.stop()
    assert engine.notes == ("the generation config's min_new_tokens=4 is not heeded here",)


def test_nothing_stays_of_requests_that_have_ended():
    family = BY_NAME["qwen2-vl"]
    engine = engine_of(family, model_of(family))
    requests = [engine.submit(ask(number, name), Heard()) for number, name in ASKED]
    requests.append(engine.submit(ask("bad"), Heard()))
    engine.cancel(requests[2])
    run(engine)
    gone = [weakref.ref(request.cache) for request in requests]
    requests.clear()
    gc.collect()
    assert [reference() for reference in gone] == [None] * len(gone)
    assert not [x for x in threading.enumerate() if x.name == "foveate-prompt"]
    engine.stop()

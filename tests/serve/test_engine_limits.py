"""Nobody takes more than there is or overtakes, and whoever fails or leaves does so alone."""

import threading
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engines import METHODS, Heard, ask, engine_of, made, model_of, plain, ready, run, wait_for
from families import BY_NAME
from foveate.errors import CacheError, InputError, MethodError
from foveate.schedule import AfterPrefill
from foveate.serve.engine.asking import Busy, Done, Failed, TooLarge
from foveate.serve.engine.footprint import held

QWEN = BY_NAME["qwen2-vl"]
NAMES = list(METHODS)


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(20260)
    return model_of(QWEN)


@pytest.fixture(scope="module")
def answers(model) -> dict[tuple[int, str], list[int]]:
    """What everybody should hear."""
    return {(i, name): plain(QWEN, model, i, name) for i in range(5) for name in NAMES}


def held_now(engine: Any) -> int:
    """The bytes that all requests hold, counted on their storages."""
    apart = [*engine._alone, *([engine._reading] if engine._reading else [])]
    return engine._batch.rows.nbytes + sum(held(x.cache) for x in apart)


def test_bytes_never_pass_the_budget_and_nobody_is_overtaken(model, answers):
    free = engine_of(QWEN, model)
    token = free._footprint.token
    assert token == 3 * 2 * 2 * 8 * 4  # layers, keys and values, heads, width, bytes
    free.stop()
    budget = 130 * token
    engine = engine_of(QWEN, model, kv_bytes=budget)
    asked = [(i % 5, NAMES[i % len(NAMES)]) for i in range(12)]
    heard = [Heard() for _ in asked]
    tickets = [engine.submit(ask(*one), sink) for one, sink in zip(asked, heard, strict=True)]
    ready(engine)
    begun, together = [], 0
    while engine.step():
        assert held_now(engine) == engine.stats().kv_bytes <= budget
        reserved = sum(request.reserved for request in engine._all() if request.paced or request.kv)
        assert held_now(engine) <= reserved <= budget
        begun += [x for x in tickets if (x.paced or x.kv) and x not in begun]
        together = max(together, engine.stats().running)
    assert begun == tickets and together > 2
    assert [sink.ids for sink in heard] == [answers[one] for one in asked]
    assert engine.stats().kv_bytes == 0 < engine.stats().kv_bytes_peak <= budget
    engine.stop()


def test_what_can_never_fit_fails_by_name_and_the_rest_goes_on(model, answers):
    engine = engine_of(QWEN, model, kv_bytes=40 * 384)
    large, small = Heard(), Heard()
    engine.submit(ask(0), large)  # 35 tokens and an answer of 10
    engine.submit(ask(4, "aircache"), small)
    run(engine)
    assert isinstance(large.end, Failed) and isinstance(large.end.error, TooLarge)
    assert "17,280 bytes" in str(large.end.error) and "15,360" in str(large.end.error)
    assert small.ids == answers[4, "aircache"]
    engine.stop()


def test_a_prompt_longer_than_the_model_reads_is_refused():
    model = model_of(QWEN)
    model.config.get_text_config().max_position_embeddings = 30
    engine = engine_of(QWEN, model)
    long, short = Heard(), Heard()
    engine.submit(ask(0), long)
    engine.submit(ask(1, max_new_tokens=500), short)  # 22 tokens
    run(engine)
    assert isinstance(long.end.error, TooLarge) and "35 tokens" in str(long.end.error)
    assert short.end.reason == "length" and short.end.completion_tokens == 8
    engine.stop()


def test_a_full_queue_is_busy(model, answers):
    engine = engine_of(QWEN, model, queue=2, most=1)
    heard = [Heard(), Heard()]
    for sink in heard:
        engine.submit(ask(0, "full"), sink)
    with pytest.raises(Busy, match="2 requests wait"):
        engine.submit(ask(0), Heard())
    ready(engine)
    engine.step()
    heard.append(Heard())
    engine.submit(ask(4, "full"), heard[-1])
    while engine.step():
        assert engine.stats().running + engine.stats().prefilling <= 1
    assert [x.ids for x in heard] == [answers[0, "full"]] * 2 + [answers[4, "full"]]
    engine.stop()
    with pytest.raises(Busy, match="stopping"):
        engine.submit(ask(0), Heard())
    with pytest.raises(CacheError, match="make a new one"):
        engine.start()


@pytest.mark.parametrize("name", ["aircache", "h2o"])
@pytest.mark.parametrize("steps", [0, 1, 2, 4, 9])
def test_who_leaves_at_any_stage_frees_everything(model, answers, name, steps):
    engine = engine_of(QWEN, model)
    left, stays = Heard(), Heard()
    ticket = engine.submit(ask(0, name, max_new_tokens=30), left)
    engine.submit(ask(1, "foveate"), stays)
    ready(engine)
    for _ in range(steps):
        engine.step()
    engine.cancel(ticket)
    engine.step()
    assert left.end.reason == "cancelled" and ticket.reserved == 0
    assert held(ticket.cache) == 0 and ticket.paced is None
    assert not [x for x in threading.enumerate() if x.name == "foveate-prompt"][1:]
    run(engine)
    assert stays.ids == answers[1, "foveate"] and engine.stats().kv_bytes == 0
    assert engine.stats().cancelled == 1
    engine.cancel(ticket)
    assert not engine.step()
    engine.stop()


def test_who_fails_fails_alone(model, answers, monkeypatch):
    engine = engine_of(QWEN, model)
    heard = {name: Heard() for name in ("bad", "reading", "sampling", "sink", "method", "well")}
    engine.submit(ask("bad"), heard["bad"])
    broken = engine.submit(ask(0, "aircache"), heard["reading"])
    mute = engine.submit(ask(1, "adakv"), heard["sampling"])

    def deaf(event: Any) -> None:
        heard["sink"].events.append(event)
        raise OSError("nobody is there")

    engine.submit(ask(2, "foveate"), deaf)
    with pytest.raises(MethodError):
        compacted = replace(made("aircache"), when=AfterPrefill(positions="compacted"))
        engine.submit(replace(ask(0), method=compacted), heard["method"])
    engine.submit(ask(3, "full"), heard["well"])
    ready(engine)
    monkeypatch.setattr(
        broken.cache, "begin", failing(RuntimeError("no room"), 1, broken.cache.begin)
    )
    choose = mute.sampler.choose
    monkeypatch.setattr(mute.sampler, "choose", failing(ValueError("no number"), 3, choose))
    run(engine)
    assert isinstance(heard["bad"].end.error, InputError)
    assert "no such picture" in str(heard["bad"].end.error)
    assert str(heard["reading"].end.error) == "no room"
    assert str(heard["sampling"].end.error) == "no number"
    assert heard["sampling"].ids == answers[1, "adakv"][:2]
    assert len(heard["sink"].events) == 2 and isinstance(heard["sink"].events[-1], Done)
    assert heard["well"].ids == answers[3, "full"]
    stats = engine.stats()
    assert (stats.failures, stats.cancelled, stats.kv_bytes) == (3, 1, 0)
    engine.stop()


def failing(error: Exception, at: int, real: Any) -> Any:
    """A function that raises at its n-th call."""
    calls = []

    def call(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        if len(calls) == at:
            raise error
        return real(*args, **kwargs)

    return call


def test_a_pass_that_fails_costs_the_newest_its_answer(model, answers):
    engine = engine_of(QWEN, model, chunk=None)
    heard = [Heard() for _ in range(3)]
    for i, sink in enumerate(heard):
        engine.submit(ask(i, "aircache"), sink)
    ready(engine)
    for _ in range(4):
        engine.step()
    assert len(engine._batch) == 3

    def scarce(module: Any, args: Any, kwargs: Any) -> None:
        if kwargs["input_ids"].shape == (3, 1):
            raise torch.OutOfMemoryError("three are too many")

    hook = model.register_forward_pre_hook(scarce, with_kwargs=True)
    run(engine)
    hook.remove()
    assert "three are too many" in str(heard[2].end.error)
    assert [x.ids for x in heard[:2]] == [answers[0, "aircache"], answers[1, "aircache"]]
    engine.stop()


def test_the_model_leaves_as_it_came_and_threads_answer_threads(answers):
    model = model_of(QWEN, attention="eager")
    model.model.rope_deltas = before = torch.tensor([[3]])
    names = [name for name, _ in vars(model).items()]
    engine = engine_of(QWEN, model)
    engine.start()
    engine.start()
    asked = [(i % 5, NAMES[i % len(NAMES)]) for i in range(8)]
    heard = [Heard() for _ in asked]

    def submit(part: int) -> None:
        for one, sink in list(zip(asked, heard, strict=True))[part::2]:
            engine.submit(ask(*one), sink)

    threads = [threading.Thread(target=submit, args=(part,)) for part in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_for(heard)
    assert [sink.ids for sink in heard] == [answers[one] for one in asked]
    late = Heard()
    engine.submit(ask(0, "full", max_new_tokens=500), late)
    wait_for([late], events=1)
    engine.stop()
    assert late.end.reason == "cancelled"
    assert model.model.rope_deltas is before
    assert model.config.get_text_config()._attn_implementation == "eager"
    assert not model._forward_pre_hooks and not model._forward_hooks
    assert [name for name, _ in vars(model).items()] == names and "generate" not in vars(model)
    assert not [x for x in threading.enumerate() if x.name in ("foveate-engine", "foveate-prompt")]


def test_an_answer_whose_length_nobody_says_is_bounded_too(model, answers):
    engine, heard = engine_of(QWEN, model), [Heard() for _ in range(3)]
    for sink, options in zip(
        heard, ({}, {"max_new_tokens": 2}, {"max_new_tokens": 9}), strict=True
    ):
        engine.submit(ask(0, "aircache", most=3, **options), sink)
    run(engine)
    assert [sink.ids for sink in heard] == [answers[0, "aircache"][:count] for count in (3, 2, 3)]
    engine.stop()


def test_an_answer_ends_where_generate_ends_it(model):
    """Alone, by a limit of its own that transformers knows and the engine does not."""
    engine = engine_of(QWEN, model)
    sink = Heard()
    request = engine.submit(ask(0, "h2o"), sink)
    ready(engine)
    while request.tokens < 3:
        engine.step()
    request.paced.leave()
    run(engine)
    assert (sink.end.reason, sink.end.completion_tokens) == ("length", 3)
    engine.stop()


MOVES = st.lists(
    st.tuples(
        st.sampled_from(["ask", "ask", "cancel", "step", "step", "step"]),
        st.integers(0, 4), st.sampled_from(NAMES),
    ),
    min_size=5, max_size=25,
)  # fmt: skip


@given(moves=MOVES, chunk=st.sampled_from([None, 7]), budget=st.sampled_from([None, 140]))
@settings(max_examples=10, deadline=None)
def test_whoever_comes_and_goes_the_others_hear_the_same(model, answers, moves, chunk, budget):
    limit = None if budget is None else budget * 384
    engine = engine_of(QWEN, model, chunk=chunk, kv_bytes=limit, most=4)
    asked: list[tuple[Any, Heard, tuple[int, str]]] = []
    for move, number, name in moves:
        if move == "ask":
            sink = Heard()
            asked.append((engine.submit(ask(number, name), sink), sink, (number, name)))
        elif move == "cancel" and asked:
            engine.cancel(asked[number % len(asked)][0])
        elif move == "step":
            engine.step()
            assert limit is None or held_now(engine) <= limit
    run(engine)
    for ticket, sink, one in asked:
        expected = answers[one]
        if ticket.cancelled and sink.end.reason == "cancelled":
            assert sink.ids == expected[: len(sink.ids)]
        else:
            assert sink.ids == expected
    assert engine.stats().kv_bytes == 0
    engine.stop()

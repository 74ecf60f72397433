"""What nobody announces: memory that is full, interrupts, sinks that stop, numbers that are odd."""

import gc
import math
import signal
import threading
import weakref
from typing import Any

import pytest
import torch

from engines import Heard, ask, engine_of, model_of, plain, ready, run
from families import BY_NAME
from foveate.errors import InputError
from foveate.serve.engine import Engine
from foveate.serve.engine.asking import Ask, Done, Failed, Held
from foveate.serve.engine.footprint import Footprint
from foveate.serve.engine.turnstile import Paced, Turnstile

QWEN = BY_NAME["qwen2-vl"]


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(20260)
    return model_of(QWEN)


@pytest.fixture(scope="module")
def answers(model) -> list[list[int]]:
    """What three should hear."""
    return [plain(QWEN, model, number, "aircache") for number in range(3)]


def three(engine: Engine) -> tuple[list[Any], list[Heard]]:
    """Three who ask."""
    heard = [Heard() for _ in range(3)]
    tickets = [engine.submit(ask(i, "aircache"), sink) for i, sink in enumerate(heard)]
    ready(engine)
    return tickets, heard


def test_who_has_no_room_beside_the_others_fails_alone(model, answers, monkeypatch):
    engine = engine_of(QWEN, model)
    _, heard = three(engine)
    join, calls = engine._batch.rows.join, []

    def scarce(*args: Any) -> None:
        calls.append(args)
        if len(calls) == 2:
            raise MemoryError("no room for two")
        join(*args)

    monkeypatch.setattr(engine._batch.rows, "join", scarce)
    run(engine)
    assert str(heard[1].end.error) == "no room for two"
    assert [heard[0].ids, heard[2].ids] == [answers[0], answers[2]]
    assert engine.stats().kv_bytes == 0
    engine.stop()


def test_nobody_is_forgotten_when_letting_go_fails(model, answers, monkeypatch):
    engine = engine_of(QWEN, model, most=1)
    tickets, heard = three(engine)
    keep, calls = engine._batch.rows.keep, []

    def scarce(rows: Any) -> None:
        calls.append(rows)
        if len(calls) == 1:
            raise MemoryError("not even for less")
        keep(rows)

    monkeypatch.setattr(engine._batch.rows, "keep", scarce)
    while len(engine._batch) < 1:
        engine.step()
    engine.cancel(tickets[0])
    engine.cancel(tickets[1])
    with pytest.raises(MemoryError):
        engine.step()
    run(engine)
    assert [sink.end.reason for sink in heard] == ["cancelled", "cancelled", "length"]
    assert heard[2].ids == answers[2]
    engine.stop()


def test_a_sink_may_stop_the_engine(model):
    engine = engine_of(QWEN, model, max_new_tokens=1000)
    other, events = Heard(), []

    def stopping(event: Any) -> None:
        events.append(event)
        engine.stop()

    engine.submit(ask(0, "aircache"), stopping)
    engine.submit(ask(1, "aircache"), other)
    engine.start()
    engine._thread.join(60)
    assert not engine.is_running and not model._forward_hooks
    assert isinstance(events[-1], Done) and events[-1].reason == "cancelled"
    assert other.end.reason == "cancelled"
    engine.stop()


def test_a_sink_may_stop_the_engine_that_it_steps(model):
    engine, events = engine_of(QWEN, model), []

    def stopping(event: Any) -> None:
        events.append(event)
        engine.stop()

    engine.submit(ask(0, "aircache", held=True), stopping)
    run(engine)
    assert not model._forward_hooks
    assert isinstance(events[0], Held) and events[-1].reason == "cancelled"
    assert [isinstance(event, Done) for event in events].count(True) == 1


def test_an_engine_that_nobody_stopped_leaves_the_model_as_it_was(model, monkeypatch):
    engine = engine_of(QWEN, model)
    assert model._forward_hooks
    del engine
    gc.collect()
    assert not model._forward_hooks and not model._forward_pre_hooks

    def refuse(*_: Any) -> None:
        raise RuntimeError("out of something")

    monkeypatch.setattr(Footprint, "measured", refuse)
    with pytest.raises(RuntimeError, match="out of something"):
        engine_of(QWEN, model)
    gc.collect()
    assert not model._forward_hooks and not model._forward_pre_hooks


def test_what_has_failed_is_not_let_in(model):
    engine = engine_of(QWEN, model)
    request = engine.submit(ask(0), Heard())
    ready(engine)
    request.fail(InputError("in the moment before it was to be read"))
    assert engine._waiting.next([]) is None
    run(engine)
    assert isinstance(request.sink.end, Failed)
    engine.stop()


def test_an_error_holds_nothing_that_was_being_read(model, monkeypatch):
    engine, gone = engine_of(QWEN, model), []

    def refuse(*_: Any, **__: Any) -> None:
        picture = torch.zeros(9)
        gone.append(weakref.ref(picture))
        raise ValueError("no such picture")

    monkeypatch.setattr(engine.processor, "apply_chat_template", refuse, raising=False)
    heard = Heard()
    engine.submit(ask(0), heard)
    run(engine)
    assert isinstance(heard.end.error.__cause__, ValueError)
    assert gone[0]() is None
    engine.stop()


def test_who_cannot_be_prepared_for_does_not_wait(model, monkeypatch):
    engine = engine_of(QWEN, model)

    def full(*_: Any) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(engine._waiting._beside, "submit", full)
    with pytest.raises(RuntimeError):
        engine.submit(ask(0), Heard())
    assert engine.stats().waiting == engine.stats().requests == 0 and not engine.step()
    engine.stop()


class Counts(torch.nn.Module):
    """A model that is interrupted at a number, and takes its time then."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at, self.done, self.slow = at, [], threading.Event()

    def forward(self, number: int) -> Any:
        if number == self.at:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            self.slow.wait(0.2)
        self.done.append(number)
        return Counts

    logits = torch.zeros(1, 1, 1)


@pytest.fixture
def interruptible():
    """Interrupts are heard, also where a shell started the tests in the background."""
    held = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, held)


def test_an_interrupt_waits_for_the_pass_that_goes_on(interruptible):
    model = Counts(at=2)
    turnstile = Turnstile(model)
    paced = Paced(lambda: [model(number) for number in range(4)])
    for _ in range(3):
        turnstile.proceed(paced)
    with pytest.raises(KeyboardInterrupt):
        turnstile.proceed(paced)
    assert model.done == [0, 1, 2] and not paced.ended
    turnstile.proceed(paced)
    assert model.done == [0, 1, 2, 3] and paced.ended
    turnstile.close()


def test_who_is_left_after_an_interrupt_hears_the_same(model, answers):
    engine = engine_of(QWEN, model, chunk=None)
    tickets, heard = three(engine)
    while len(engine._batch) < 3:
        engine.step()

    def interrupt(*_: Any) -> None:
        hook.remove()
        raise KeyboardInterrupt

    hook = model.model.language_model.layers[1].register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        engine.step()
    engine.cancel(tickets[0])
    run(engine)
    assert [sink.ids for sink in heard[1:]] == answers[1:]
    engine.stop()


ODD = {
    "max_new_tokens": (0, -1),
    "temperature": (-0.1, math.nan, math.inf),
    "top_p": (-0.1, 1.1, math.nan),
    "seed": (1 << 64, -(1 << 70)),
    "logprobs": (-1,),
    "stop": ("END",),
}


@pytest.mark.parametrize(("name", "value"), [(n, x) for n, xs in ODD.items() for x in xs])
def test_a_number_that_cannot_be_is_refused_by_name(name, value):
    with pytest.raises(InputError, match=rf"^{name} is .*{value}.*; give "):
        Ask((), **{name: value})


@pytest.mark.parametrize("name", ["kv_bytes", "queue", "most", "chunk", "max_new_tokens"])
def test_an_engine_without_room_is_refused(model, name):
    with pytest.raises(InputError, match=f"^{name} is 0; give at least 1$"):
        engine_of(QWEN, model, **{name: 0})
    assert not model._forward_hooks


def test_next_to_no_temperature_is_none(model, answers):
    engine = engine_of(QWEN, model, temperature=1e-40)
    _, heard = three(engine)
    run(engine)
    assert [sink.ids for sink in heard] == answers
    engine.stop()


@pytest.mark.parametrize("when", [0, 3])
def test_numbers_that_are_none_fail_their_own_request(model, answers, monkeypatch, when):
    engine = engine_of(QWEN, model)
    tickets, heard = three(engine)
    hear = tickets[1].hear

    def poisoned(logits: Any, best: int) -> int:
        if tickets[1].tokens == when:
            logits = torch.full_like(logits, math.nan)
        return hear(logits, best)

    monkeypatch.setattr(tickets[1], "hear", poisoned)
    run(engine)
    assert isinstance(heard[1].end, Failed) and isinstance(heard[1].end.error, ArithmeticError)
    assert heard[1].ids == answers[1][:when]
    assert [heard[0].ids, heard[2].ids] == [answers[0], answers[2]]
    engine.stop()

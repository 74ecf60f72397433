"""The engine: requests come at any time, their prompts are read one by one, answers go on together.

A step lets the prompt that is being read advance by one forward pass, and gives every answer one
more token. Requests wait in the order in which they came until there is room for their keys and
values.
"""

from __future__ import annotations

import threading
import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any

from foveate.errors import CacheError
from foveate.hf.attach import Lease
from foveate.hf.cache import CompressedCache
from foveate.hf.rows import lonely
from foveate.hf.support import unwrap
from foveate.method import Method
from foveate.methods.baselines import full
from foveate.serve.engine.admission import Admission
from foveate.serve.engine.asking import Ask, Event, Stats, check_within
from foveate.serve.engine.batch import Batch
from foveate.serve.engine.footprint import Footprint, held, let_go
from foveate.serve.engine.prompts import Prompts
from foveate.serve.engine.reading import reading
from foveate.serve.engine.request import Request
from foveate.serve.engine.sampling import unheeded
from foveate.serve.engine.turnstile import Turnstile

__all__ = ["Engine"]


class Engine:
    """Answers requests with one model, each with a method of its own.

    `kv_bytes` bounds the keys and values of all requests, `queue` how many may wait, `most` how
    many are answered at once, `chunk` the prompt tokens of a pass (None: whole prompts). Sinks are
    called by whoever calls `step`: the engine's thread, once `start` was called.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        method: Method | None = None,
        *,
        kv_bytes: int | None = None,
        queue: int = 64,
        most: int = 64,
        chunk: int | None = 512,
        max_new_tokens: int = 512,
        temperature: float = 0.0,
        top_p: float = 1.0,
    ) -> None:
        default = Ask((), max_new_tokens, temperature, top_p)
        sizes = {"kv_bytes": kv_bytes, "queue": queue, "most": most, "chunk": chunk}
        for name, value in sizes.items():
            check_within(name, value, 1)
        self._model = unwrap(model)
        self.processor = processor
        self.method = full() if method is None else method
        self._chunk = chunk
        self._lease = Lease(self._model)
        self._turnstile = Turnstile(self._model)
        weakref.finalize(self, self._turnstile.close)  # should nobody stop the engine
        with self._turnstile.forgetting():
            self._footprint = Footprint.measured(self._model, self._lease)
        prompts = Prompts(self._model, processor, self._footprint, kv_bytes, default)
        self._waiting = Admission(prompts.prepare, kv_bytes, most, queue)
        self._reading: Request | None = None
        self._batch = Batch(self._model, self._lease)
        self._alone: list[Request] = []
        self._thread: threading.Thread | None = None
        self._counts: Counter[str] = Counter(failures=0, cancelled=0, prompt_tokens=0, tokens=0)
        self._now = self._peak = 0

    @property
    def model(self) -> Any:
        """Return the model, which nobody but the engine may run."""
        return self._model

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what a server's operator should know of this model."""
        alone = self._footprint.alone
        own = () if alone is None else (f"every request is decoded by itself: {alone}",)
        return own + unheeded(getattr(self._model, "generation_config", None))

    def submit(self, ask: Ask, sink: Callable[[Event], None]) -> Request:
        """Put a request at the end of the queue, and return its ticket.

        Its prompt is prepared in a thread of its own. Raises `Busy` if too many wait, and
        `MethodError` for a method that this model cannot have.
        """
        method = full() if ask.full else ask.method or self.method
        alone = self._footprint.alone
        cache = CompressedCache(self._lease, method, storage="dense" if alone else "ragged")
        request = Request(ask, sink, cache, alone or lonely(cache))
        self._waiting.add(request)
        return request

    def cancel(self, ticket: Request) -> None:
        """End a request where it is; its bytes are free after the next step."""
        self._waiting.cancel(ticket)

    def step(self) -> bool:
        """Advance everything by one pass; return whether there is more to do.

        Waits for a prompt to be prepared if there is nothing else to do.
        """
        self._cancel()
        self._admit()
        self._read()
        self._batch.step()
        for request in list(self._alone):
            self._proceed(request)
        self._settle()
        if self._waiting and self._reading is None and not self._active():
            self._waiting.rest(seconds=1.0)
        return bool(self._all())

    def _active(self) -> list[Request]:
        return [*self._batch, *self._alone]

    def _all(self) -> list[Request]:
        return [*self._waiting, *([self._reading] if self._reading else []), *self._active()]

    def _cancel(self) -> None:
        """Note who wants no answer any more."""
        for request in self._all():
            if request.cancelled:
                request.end("cancelled")
        self._settle()

    def _admit(self) -> None:
        """Begin to read the first prompt that waits, if it is ready and there is room for it."""
        request = self._waiting.next(self._active()) if self._reading is None else None
        if request is None:
            return
        self._reading = request
        self._counts["prompt_tokens"] += request.prompt
        request.paced = reading(self._model, request, self._chunk)
        self._turnstile.proceed(request.paced)  # up to its first pass

    def _read(self) -> None:
        """Let the prompt that is being read advance by a pass; an answer begins behind the last."""
        request = self._reading
        if request is None:
            return
        paced = self._proceed(request)
        let_go(request.cache)
        if request.ended or not request.tokens:
            return
        stored = held(request.cache)
        rest = self._footprint.of(request.prompt + request.most)
        rest -= self._footprint.of(request.prompt)
        request.reserved = min(request.reserved, stored + rest)
        if request.alone is not None:
            self._alone.append(request)
        else:
            place = request.cache.seen + self._turnstile.delta(paced)
            paced.leave()
            try:
                self._batch.join(request, place if paced.top is None else int(paced.top) + 1)
            except Exception as error:  # there is no room for it beside the others
                request.fail(error)
                return
            request.paced = None
        self._reading = None

    def _proceed(self, request: Request) -> Any:
        """Let a call go on by a pass, and note if it failed."""
        paced = request.paced
        assert paced is not None
        self._turnstile.proceed(paced)
        if paced.error is not None:
            request.fail(paced.error)
        elif paced.ended and (request.alone is not None or not request.tokens):
            request.end("length")  # `generate` had reasons of its own, such as `max_time`
        return paced

    def _settle(self) -> None:
        """Tell what is new, and free what has ended before its end is told."""
        for request in self._all():
            self._tell(request)
        ended = self._batch.drop() + self._waiting.ended() + [x for x in self._alone if x.ended]
        self._alone = [request for request in self._alone if not request.ended]
        if self._reading is not None and self._reading.ended:
            ended.append(self._reading)
            self._reading = None
        for request in ended:
            if request.paced is not None:
                request.paced.leave()
                request.paced = None
            if request.ask.held and request.alone and request.reason in ("stop", "length"):
                request.hold(request.cache.report())  # which may have evicted since
            request.cache.reset()
            request.inputs, request.reserved = {}, 0
            self._counts["tokens"] += request.tokens
            self._counts["failures"] += request.error is not None
            self._counts["cancelled"] += request.reason == "cancelled"
            request.events.append(request.last())
            self._tell(request)
        self._now = self._held()
        self._peak = max(self._peak, self._now)

    def _tell(self, request: Request) -> None:
        """Hand over the events of a request; whoever cannot take them wants no more."""
        try:
            while request.events:  # which a sink that stops the engine has told in between
                request.sink(request.events.pop(0))
        except Exception:
            request.events.clear()
            request.cancelled = True
            request.end("cancelled")

    def _held(self) -> int:
        """Return the bytes of all keys and values."""
        apart = [*self._alone, *([self._reading] if self._reading else [])]
        return self._batch.rows.nbytes + sum(held(request.cache) for request in apart)

    def stats(self) -> Stats:
        """Return counts and bytes."""
        return Stats(
            running=len(self._batch) + len(self._alone),
            waiting=len(self._waiting),
            prefilling=int(self._reading is not None),
            kv_bytes=self._now,
            kv_bytes_peak=self._peak,
            kv_bytes_budget=self._waiting.budget,
            requests=self._waiting.came,
            **self._counts,
        )

    def start(self) -> None:
        """Have a thread of the engine's own take the steps."""
        if self._waiting.closed:
            raise CacheError("this engine was stopped and has let go of its model; make a new one")
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="foveate-engine", daemon=True)
            self._thread.start()

    @property
    def is_running(self) -> bool:
        """Return whether the engine's thread takes steps."""
        return self._thread is not None and self._thread.is_alive()

    def stop(self) -> None:
        """Cancel every request, and give the model back as it came."""
        self._waiting.close()
        if self._thread is None:
            self._leave()
        elif self._thread is not threading.current_thread():  # a sink's, which goes on first
            self._thread.join()

    def __enter__(self) -> Engine:
        self.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self.stop()

    def _run(self) -> None:
        try:
            while not self._waiting.closed:
                self._go_on()
        finally:
            self._waiting.close()
            self._leave()

    def _go_on(self) -> None:
        """Take a step, or wait until there is something to do."""
        try:
            if not self.step():
                self._waiting.rest()
        except Exception as error:  # of ours: whoever is in it is told, and others may come
            for request in self._all():
                request.fail(error)
            self._settle()

    def _leave(self) -> None:
        """Tell everybody who is left that nothing more comes, and let go of the model."""
        try:
            for request in self._all():
                request.cancelled = True
            self._cancel()
        finally:
            self._turnstile.close()
            self._lease.release()

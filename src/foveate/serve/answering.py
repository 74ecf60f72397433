"""The engine's events, which come from its thread, as something that a coroutine can wait for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

from foveate.serve.engine.asking import Ask, Done, Event, Failed, Held, Piece
from foveate.serve.problems import FINAL, Problem
from foveate.serve.room import Share

__all__ = ["Answer", "Answers"]


class Answers(Protocol):
    """What a server needs of an engine."""

    @property
    def is_running(self) -> bool:
        """Return whether there is somebody who works."""

    def start(self) -> None:
        """Begin to work, if that was not done."""

    def stop(self) -> None:
        """End every request, and work no more."""

    def submit(self, ask: Ask, sink: Callable[[Event], None]) -> Any:
        """Return a ticket; `sink` gets pieces and then one `Done` or `Failed`, in any thread."""

    def cancel(self, ticket: Any) -> None:
        """End a request, if it has not ended."""

    def stats(self) -> Any:
        """Return counts and bytes by name."""


class Answer:
    """One request in the engine: its events in order, until its time is over or it is closed."""

    def __init__(self, engine: Answers, ask: Ask, seconds: float, share: Share) -> None:
        self._engine, self._share = engine, share
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._seconds, self._end = seconds, self._loop.time() + seconds
        if not engine.is_running:
            raise Problem(503, "the engine does not run; the server has to be started again")
        self._ticket = engine.submit(ask, self._take)

    @property
    def left(self) -> float:
        """Return the seconds until its time is over."""
        return self._end - self._loop.time()

    async def events(self) -> AsyncIterator[Held | Piece | Done]:
        """Yield pieces and then the end; raise what made the request fail."""
        while True:
            event = await self._next()
            if isinstance(event, Failed):
                raise event.error
            if isinstance(event, Done) and event.reason == "cancelled":
                raise Problem(503, "the request was cancelled; ask again", code="cancelled")
            yield event
            if isinstance(event, Done):
                return

    async def _next(self) -> Event:
        try:
            return await asyncio.wait_for(self._events.get(), self.left)
        except asyncio.TimeoutError:
            self.close()
            raise Problem(
                504,
                f"the answer was not ready after {self._seconds:g} s; ask for fewer tokens, or "
                "when fewer others ask",
                code="timeout",
                headers=FINAL,
            ) from None

    def _take(self, event: Event) -> None:
        """Hand an event from the engine's thread to the loop, if that still runs."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    def close(self) -> None:
        """Cancel what goes on, and free what the request held; may be called again."""
        self._engine.cancel(self._ticket)
        self._share.free()

"""Who comes in, and when: first come, first served, and only where there is room to the end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from foveate.serve.engine.asking import Busy
from foveate.serve.engine.request import Request

__all__ = ["Admission"]


class Admission:
    """The requests that wait, in the order in which they came; used by several threads.

    `prepare` makes a request ready, in a thread of its own. `budget` bounds the bytes that all may
    hold at once, `most` how many are in work, `queue` how many wait.
    """

    def __init__(
        self, prepare: Callable[[Request], None], budget: int | None, most: int, queue: int
    ) -> None:
        self._prepare = prepare
        self.budget, self._most, self._queue = budget, most, queue
        self._news = threading.Condition()
        self._beside = ThreadPoolExecutor(1, "foveate-processor")
        self._waiting: list[Request] = []
        self.came = 0  # requests so far
        self.closed = False

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Request]:
        return iter(list(self._waiting))

    def add(self, request: Request) -> None:
        """Put a request at the end, to be prepared; raises `Busy` if too many wait."""
        with self._news:
            if self.closed:
                raise Busy("the engine is stopping; ask again when it is back")
            if len(self._waiting) >= self._queue:
                raise Busy(f"{len(self._waiting)} requests wait already; ask again later")
            self._beside.submit(self._make_ready, request)  # raises where no thread can start
            self._waiting.append(request)
            self.came += 1
            self._news.notify_all()

    def next(self, active: Sequence[Request]) -> Request | None:
        """Return the first request, if it is ready and there is room beside those in work."""
        with self._news:
            first = self._waiting[0] if self._waiting else None
            if first is None or not first.ready or first.ended or len(active) >= self._most:
                return None
            taken = sum(other.reserved for other in active) + first.reserved
            if self.budget is not None and taken > self.budget:
                return None
            return self._waiting.pop(0)

    def ended(self) -> list[Request]:
        """Forget the requests that have ended, and return them."""
        with self._news:
            ended = [request for request in self._waiting if request.ended]
            self._waiting = [request for request in self._waiting if request not in ended]
        return ended

    def cancel(self, request: Request) -> None:
        """Mark a request as one that nobody wants any more, wherever it is."""
        with self._news:
            request.cancelled = True
            self._news.notify_all()

    def rest(self, seconds: float | None = None) -> None:
        """Wait until the first request can be looked at, or there is none for so long."""
        with self._news:
            self._news.wait_for(self._is_due, seconds)

    def close(self) -> None:
        """Let nobody in any more."""
        with self._news:
            self.closed = True
            self._news.notify_all()
        self._beside.shutdown(wait=False, cancel_futures=True)

    def _is_due(self) -> bool:
        first = self._waiting[:1]
        return self.closed or any(x.ready or x.cancelled for x in first)

    def _make_ready(self, request: Request) -> None:
        try:
            if not request.cancelled:
                self._prepare(request)
        except BaseException as error:
            request.fail(error)
        with self._news:
            request.ready = True
            self._news.notify_all()

"""The answers that are decoded together: one token of each in every step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from foveate.hf.attach import Lease
from foveate.hf.rows import Rows
from foveate.serve.engine.request import Request

__all__ = ["Batch"]


class Batch:
    """Requests whose prompts were read, in the order of the rows that hold them."""

    def __init__(self, model: Any, lease: Lease) -> None:
        self._model = model
        self.rows = Rows(lease)
        self.requests: list[Request] = []

    def __len__(self) -> int:
        return len(self.requests)

    def __iter__(self) -> Iterator[Request]:
        return iter(self.requests)

    def join(self, request: Request, place: int) -> None:
        """Take a request in, with what its cache holds."""
        self.rows.join(request.cache, place)
        self.requests.append(request)

    def drop(self) -> list[Request]:
        """Let go of what has ended, and return it."""
        ended = [request for request in self.requests if request.ended]
        if ended:
            self.rows.keep([i for i, x in enumerate(self.requests) if not x.ended])
            self.requests = [request for request in self.requests if not request.ended]
        return ended

    def step(self) -> None:
        """Decode one token of every request.

        If the pass itself raises, the newest request is let go for it, and the others go on: more
        than one was in it, and what one more asked for was too much.
        """
        if not self.requests:
            return
        try:
            logits = self.rows.step(self._model, [request.seen[-1] for request in self.requests])
            best = logits.argmax(-1).tolist()
        except Exception as error:
            self.requests[-1].fail(error)
            return
        for request, row, token in zip(self.requests, logits, best, strict=True):
            try:
                request.hear(row, token)
            except Exception as error:
                request.fail(error)

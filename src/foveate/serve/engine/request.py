"""One request on its way: its prompt, its cache, its tokens, and the events that it owes."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from foveate.cache.report import CacheReport
from foveate.hf.cache import CompressedCache
from foveate.serve.engine.asking import Ask, Chance, Done, Event, Failed, Held
from foveate.serve.engine.sampling import Sampler, chance
from foveate.serve.engine.turnstile import Paced
from foveate.serve.engine.words import Words

__all__ = ["Request"]

Reason = Literal["stop", "length", "cancelled"]


@dataclass(eq=False)
class Request:
    """A request, from its arrival to its end; the ticket that `submit` gives.

    `reserved` is what it may hold of the engine's bytes, `alone` why it is decoded by itself,
    `ready` whether its prompt is known, `reason` or `error` how it ended.
    """

    ask: Ask
    sink: Callable[[Event], None]
    cache: CompressedCache
    alone: str | None
    ready: bool = False
    cancelled: bool = False
    inputs: Mapping[str, Any] = field(default_factory=dict, repr=False)
    seen: list[int] = field(default_factory=list, repr=False)  # ids of prompt and answer
    prompt: int = 0
    visual: int = 0
    most: int = 0  # tokens that the answer may have
    ends: frozenset[int] = frozenset()  # ids that end an answer
    sampler: Sampler | None = None
    words: Words | None = None
    spell: Callable[[int], str] | None = None
    reserved: int = 0
    chunked: str | None = None  # why the prompt was read whole, if it was
    paced: Paced | None = None
    reason: Reason | None = None
    error: BaseException | None = None
    kv: dict[str, Any] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list, repr=False)
    came: float = field(default_factory=time.perf_counter)
    first: float | None = None  # seconds until the first token

    @property
    def ended(self) -> bool:
        """Return whether nothing more is to be done for it."""
        return self.reason is not None or self.error is not None

    @property
    def tokens(self) -> int:
        """Return how many tokens the answer has so far."""
        return len(self.seen) - self.prompt

    def hear(self, logits: Tensor, best: int) -> int:
        """Choose the token that follows, note what it adds to the answer, and return it."""
        assert self.sampler is not None and self.words is not None
        if bool(logits[best].isnan()):  # which is where NaN is, if there is one
            raise ArithmeticError("the model's logits are not numbers (NaN)")
        token = self.sampler.choose(logits, self.seen, best)
        if self.first is None:
            self.first = time.perf_counter() - self.came
        self.seen.append(token)
        if token in self.ends:
            self.end("stop")
            return token
        piece = self.words.add(token, self._chance(logits, token))
        if piece is not None:
            self.events.append(piece)
        if self.words.stopped:
            self.end("stop")
        elif self.tokens >= self.most:
            self.end("length")
        return token

    def end(self, reason: Reason) -> None:
        """Note how the answer ends, and all that was held back of it."""
        if self.ended:
            return
        self.reason = reason
        piece = None if self.words is None or reason == "cancelled" else self.words.finish()
        if piece is not None:
            self.events.append(piece)

    def fail(self, error: BaseException) -> None:
        """Note that the request has failed."""
        if not self.ended:
            self.error = error
        chain: list[BaseException] = []
        behind: BaseException | None = error
        while behind is not None and behind not in chain:  # an error may be its own cause
            traceback.clear_frames(behind.__traceback__)  # which hold keys, values and pictures
            chain.append(behind)
            behind = behind.__cause__ or behind.__context__

    def last(self) -> Event:
        """Return the event that ends the request."""
        if self.error is not None:
            return Failed(self.error)
        assert self.reason is not None
        seconds = time.perf_counter() - self.came
        counts = (self.prompt, self.tokens, self.visual)
        return Done(self.reason, *counts, dict(self.kv), self.first, seconds)

    def note(self, report: CacheReport, passes: int) -> None:
        """Note what the cache holds of the prompt."""
        names = ("method", "kept_visual", "total_visual", "kept_text", "total_text")
        sizes = ("bytes_stored", "bytes_full", "bytes_peak", "seconds")
        self.kv = {name: getattr(report, name) for name in names + sizes}
        self.kv |= {"chunks": passes, "whole": self.chunked, "alone": self.alone}
        self.kv["notes"] = list(report.notes)
        self.hold(report)

    def hold(self, report: CacheReport) -> None:
        """Tell what is kept of the prompt, if that is wanted."""
        if self.ask.held:
            self.events.append(Held(tuple(self.seen[: self.prompt]), report))

    def _chance(self, logits: Tensor, token: int) -> Chance | None:
        if self.ask.logprobs is None:
            return None
        assert self.spell is not None
        return chance(logits, token, self.ask.logprobs, self.spell)

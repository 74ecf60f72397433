"""`POST /ui/look`: a chat request whose stream also tells which patches are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from anyio.to_thread import run_sync
from starlette.requests import Request
from torch import Tensor

from foveate.cli.models import Loaded
from foveate.report.comparison import told_keep
from foveate.report.runs import held
from foveate.report.shown import told
from foveate.report.window import noting
from foveate.report.words import prompt
from foveate.serve.answering import Answers
from foveate.serve.chat import Chat
from foveate.serve.engine.asking import Ask, Done, Held, Piece
from foveate.serve.metrics import Metrics
from foveate.serve.problems import Problem
from foveate.serve.room import Room, Share
from foveate.serve.settings import Settings
from foveate.serve.shapes import Shape

__all__ = ["Look"]


class Look(Chat):
    """Asks the engine as any client does, and for what is kept of the prompt besides."""

    def __init__(
        self, engine: Answers, settings: Settings, metrics: Metrics, room: Room, loaded: Loaded
    ) -> None:
        super().__init__(engine, settings, metrics, room)
        self._loaded = loaded

    async def _asked(self, request: Request, share: Share) -> tuple[Ask, Shape, bool]:
        ask, shape, streamed = await super()._asked(request, share)
        if not streamed:
            raise Problem(400, "a look comes as a stream; give stream true", param="stream")
        method, members = (None, {}) if ask.method is None else noting(ask.method)
        late = method is not None and method.when.follow is not None
        seen = Sight(self._loaded, _sizes(ask), members, {**shape.method, "late": late})
        return replace(ask, method=method, held=True), Looks(**vars(shape), sight=seen), True

    async def _chunk(self, shape: Shape, event: Held | Piece) -> dict[str, Any]:
        """Return the chunk of an event; what is kept is put in words beside the event loop."""
        if isinstance(event, Held):
            assert isinstance(shape, Looks)
            return await run_sync(shape.held, event)
        return await super()._chunk(shape, event)


@dataclass(frozen=True)
class Sight:
    """What a request shows: the sizes of its pictures, who observes, its method in words."""

    loaded: Loaded
    sizes: Sequence[tuple[int, int]]
    members: Mapping[int, Tensor]
    method: Mapping[str, Any]

    def of(self, event: Held) -> dict[str, Any]:
        """Return what a page shows of a prompt, and of the cache that holds some of it."""
        report, ids = event.report, list(event.ids)
        processor = self.loaded.processor
        geometry = getattr(processor, "image_processor", None)
        images = [{"src": None, "width": width, "height": height} for width, height in self.sizes]
        shown = told(
            self.loaded.model.config,
            ids,
            lambda: report.pictures(0, self.sizes, geometry),
            images,
        )
        run = {
            **self.method,
            "budget": told_keep(self.method.get("keep", 1.0)),
            "visual_kept": report.kept_visual,
            "bytes_full": report.bytes_full,
            "bytes_stored": report.bytes_stored,
            **held(report, shown, self.members),
        }
        return {
            "visual": len(shown.visual),
            "prompt": prompt(processor, ids, shown.owners),
            "pictures": shown.pictures,
            "notes": shown.notes,
            "run": run,
        }


@dataclass(frozen=True)
class Looks(Shape):
    """Chunks in OpenAI's shape, some with a `look` beside their empty text."""

    sight: Sight | None = None

    def held(self, event: Held) -> dict[str, Any]:
        """Return a chunk that tells what is kept."""
        assert self.sight is not None
        return {**self._chunk({}), "look": self.sight.of(event)}

    def last(self, done: Done) -> list[dict[str, Any]]:
        """Return the last chunks, with the times."""
        first, *rest = super().last(done)
        return [{**first, "look": {"run": _times(done)}}, *rest]


def _times(done: Done) -> dict[str, Any]:
    """Return tokens, and milliseconds until the first of them and for each of the others."""
    tokens, first, step = done.completion_tokens, done.first, None
    if first is not None and done.seconds is not None and tokens > 1:
        step = 1000 * (done.seconds - first) / (tokens - 1)
    start = None if first is None else 1000 * first
    return {"tokens": tokens, "prefill_ms": start, "decode_ms": step}


def _sizes(ask: Ask) -> list[tuple[int, int]]:
    """Return width and height of the pictures of a chat, in order."""
    parts = (part for message in ask.messages for part in message["content"])
    return [part["image"].size for part in parts if part["type"] == "image"]

"""`POST /v1/chat/completions`, whole or as a stream."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import anyio
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from foveate.serve import intake, schema
from foveate.serve.answering import Answer, Answers
from foveate.serve.engine.asking import Ask, Done, Event, Held, Piece
from foveate.serve.guard import GONE, Record, noted
from foveate.serve.metrics import Metrics
from foveate.serve.pictures import Pictures
from foveate.serve.room import Room, Share
from foveate.serve.settings import Settings
from foveate.serve.shapes import Shape

__all__ = ["Chat"]

LAST_WORDS = 1.0  # seconds beyond the time of a stream, in which it says that this is over


class Chat:
    """Asks the engine what clients ask."""

    def __init__(self, engine: Answers, settings: Settings, metrics: Metrics, room: Room) -> None:
        self._engine, self._settings = engine, settings
        self._metrics, self._room = metrics, room
        self._pictures = Pictures(settings)

    async def complete(self, request: Request) -> Response:
        """Answer a chat request; nothing of it is held when this, or its stream, is over."""
        record: Record = request.state.record
        share = self._room.share()
        try:
            answer, shape, streamed = await self._begun(request, share, record)
        except BaseException:
            share.free()
            raise
        events = self._noted(answer, record)
        streaming = False
        try:
            with _watched(request, answer, record):
                if not streamed:
                    *pieces, done = [event async for event in events]
                    return JSONResponse(shape.whole(pieces, done))
                first = await anext(events)  # so that what fails before has a status of its own
            streaming = True
            return _Stream(self._chunks(shape, first, events, record), answer)
        finally:
            if not streaming:
                answer.close()

    async def _begun(
        self, request: Request, share: Share, record: Record
    ) -> tuple[Answer, Shape, bool]:
        """Hand a request to the engine, which lets go of its pictures when it has read them."""
        ask, shape, streamed = await self._asked(request, share)
        if self._settings.log_prompts:
            record.told["messages"] = _words(ask)
        return Answer(self._engine, ask, self._settings.seconds, share), shape, streamed

    async def _asked(self, request: Request, share: Share) -> tuple[Ask, Shape, bool]:
        asked = schema.read(await intake.body(request, self._settings, share))
        ask, told = await intake.prepared(asked, self._settings, self._pictures, share)
        usage = asked.stream_options is not None and bool(asked.stream_options.include_usage)
        return ask, Shape(asked.model, bool(asked.logprobs), usage, told), bool(asked.stream)

    async def _noted(self, answer: Answer, record: Record) -> AsyncIterator[Any]:
        """Yield the events, and note what they say about times and sizes."""
        began = False
        async for event in answer.events():
            if not began and not isinstance(event, Held):
                began = True
                self._metrics.first(record.seconds)
                record.told["first"] = round(record.seconds, 4)
            if isinstance(event, Done):
                self._metrics.done(event)
                record.told |= {
                    "prompt_tokens": event.prompt_tokens,
                    "visual_tokens": event.visual_tokens,
                    "completion_tokens": event.completion_tokens,
                    "reason": event.reason,
                    "kv": dict(event.kv),
                }
            yield event

    async def _chunks(
        self, shape: Shape, first: Event, events: AsyncIterator[Event], record: Record
    ) -> AsyncIterator[str]:
        """Yield the events of a stream; what fails on the way is the last of them."""
        yield _line(shape.first())
        event = first
        try:
            while isinstance(event, Held | Piece):
                yield _line(await self._chunk(shape, event))
                event = await anext(events)
        except Exception as error:
            yield _line(noted(error, record, self._settings).body())
            return
        assert isinstance(event, Done)
        for chunk in shape.last(event):
            yield _line(chunk)
        yield "data: [DONE]\n\n"

    async def _chunk(self, shape: Shape, event: Held | Piece) -> dict[str, Any]:
        """Return an event as it is told."""
        assert isinstance(event, Piece)  # nobody has asked for more
        return shape.piece(event)


class _Stream(StreamingResponse):
    """Server-sent events, whose request ends with them, however they end."""

    media_type = "text/event-stream"

    def __init__(self, chunks: AsyncIterator[str], answer: Answer) -> None:
        super().__init__(chunks, headers={"x-accel-buffering": "no"})
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with anyio.fail_after(self._answer.left + LAST_WORDS):
                await super().__call__(scope, receive, send)
        except TimeoutError:  # the client is there, and does not read
            raise ClientDisconnect from None
        finally:
            self._answer.close()


@contextlib.contextmanager
def _watched(request: Request, answer: Answer, record: Record) -> Any:
    """Close the answer when the client goes away meanwhile."""

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        record.status = GONE
        answer.close()

    task = asyncio.ensure_future(watch())
    try:
        yield
    finally:
        task.cancel()


def _line(chunk: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(chunk, separators=(',', ':'))}\n\n"


def _words(ask: Ask) -> list[dict[str, Any]]:
    """Return the texts of a prompt, with the sizes of its pictures."""
    return [
        {
            "role": message["role"],
            "content": [
                part["text"] if part["type"] == "text" else f"picture {part['image'].size}"
                for part in message["content"]
            ],
        }
        for message in ask.messages
    ]

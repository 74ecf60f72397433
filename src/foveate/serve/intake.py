"""From the bytes of a request to what the engine is asked, within the limits at every step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import anyio
from starlette.requests import Request

from foveate.serve.choice import chosen
from foveate.serve.engine.asking import Ask
from foveate.serve.pictures import Pictures
from foveate.serve.problems import Problem
from foveate.serve.room import Share
from foveate.serve.schema import ChatRequest, PicturePart, TextPart
from foveate.serve.settings import Settings

__all__ = ["body", "prepared"]

COPIES = 3  # of a body: as it came, as text, and what base64 stood for
VALUES = 20_000  # in a body: each takes hundreds of bytes when it is read, and more when refused
LONG = 4096  # tokens of an answer whose length the request leaves to the engine
A_TOKEN, A_CHANCE = 256, 768  # bytes until they are sent, however slowly a client reads


async def body(request: Request, settings: Settings, share: Share) -> bytes:
    """Return the body of a request, read as far as it is allowed to be."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Problem(415, "the body has to be sent as content-type: application/json")
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length[:19]) > settings.body_bytes:
        raise _too_large(settings)
    data = bytearray()
    try:
        with anyio.fail_after(settings.body_seconds):
            async for chunk in request.stream():
                share.take(COPIES * len(chunk))
                data += chunk
                if len(data) > settings.body_bytes:
                    raise _too_large(settings)
    except TimeoutError:
        message = f"the body did not arrive in {settings.body_seconds:g} s"
        raise Problem(408, message, code="timeout") from None
    whole = bytes(data)
    data.clear()
    if _values(whole) > VALUES:
        message = f"the body has more than {VALUES:,} values; leave out what is not asked"
        raise Problem(400, message, code="invalid_value")
    return whole


def _values(body: bytes) -> int:
    """Return how many values JSON has, or more than are allowed; nothing is built to count them."""
    quoted = body.replace(rb"\\", b"").replace(rb"\"", b"").split(b'"', 4 * VALUES)
    if len(quoted) > 4 * VALUES:  # a value has a name at most, and each of both two quotes
        return VALUES + 1
    return sum(text.count(mark) for text in quoted[::2] for mark in (b",", b"[", b"{"))


async def prepared(
    asked: ChatRequest, settings: Settings, pictures: Pictures, share: Share
) -> tuple[Ask, Mapping[str, Any]]:
    """Return the request as the engine takes it, its pictures read, and its method in words."""
    if asked.model != settings.model:
        raise Problem(
            404,
            f"there is no model {asked.model[:80]!r}; this server has {settings.model!r}",
            param="model",
            code="model_not_found",
        )
    _check_size(asked, settings)
    choice = chosen(asked.kv, settings)
    share.take(_answer_bytes(asked, settings))
    ask = Ask(
        messages=await _messages(asked, pictures, share),
        max_new_tokens=asked.max_tokens or asked.max_completion_tokens,
        temperature=asked.temperature,
        top_p=asked.top_p,
        seed=asked.seed,
        stop=asked.stops,
        logprobs=(asked.top_logprobs or 0) if asked.logprobs else None,
        method=choice.method,
        full=choice.full,
        most=_longest(asked, settings),
    )
    return ask, choice.told


def _check_size(asked: ChatRequest, settings: Settings) -> None:
    longest = asked.max_tokens or asked.max_completion_tokens or 1
    if longest > settings.max_new_tokens:
        name = "max_tokens" if asked.max_tokens else "max_completion_tokens"
        raise _too_many(name, longest, settings.max_new_tokens)
    if len(asked.messages) > settings.messages:
        raise _too_many("messages", len(asked.messages), settings.messages)
    parts = (part for message in asked.messages for part in message.content)
    texts = [part.text for part in parts if isinstance(part, TextPart)]
    count = sum(len(message.content) for message in asked.messages) - len(texts)
    if count > settings.pictures:
        raise _too_many("pictures", count, settings.pictures)
    letters = sum(map(len, texts))
    if letters > settings.characters:
        raise _too_many("characters", letters, settings.characters)


def _longest(asked: ChatRequest, settings: Settings) -> int:
    """Return how many tokens an answer may have at most, whoever chooses that."""
    said = asked.max_tokens or asked.max_completion_tokens
    return settings.max_new_tokens if said else min(LONG, settings.max_new_tokens)


def _answer_bytes(asked: ChatRequest, settings: Settings) -> int:
    """Return what an answer may take here while its client does not read it."""
    tokens = asked.max_tokens or asked.max_completion_tokens or _longest(asked, settings)
    chances = 1 + (asked.top_logprobs or 0) if asked.logprobs else 0
    return tokens * (A_TOKEN + A_CHANCE * chances)


async def _messages(
    asked: ChatRequest, pictures: Pictures, share: Share
) -> list[Mapping[str, Any]]:
    """Return the messages as chat templates read them."""
    told: list[Mapping[str, Any]] = []
    for number, message in enumerate(asked.messages):
        content: list[Mapping[str, Any]] = []
        for index, part in enumerate(message.content):
            if isinstance(part, PicturePart):
                place = f"messages.{number}.content.{index}.image_url"
                image = await pictures.read(part.image_url.url, place, share)
                content.append({"type": "image", "image": image})
            else:
                content.append({"type": "text", "text": part.text})
        role = "system" if message.role == "developer" else message.role
        told.append({"role": role, "content": content})
    return told


def _too_large(settings: Settings) -> Problem:
    return Problem(
        413,
        f"the body has more than {settings.body_bytes:,} bytes; send smaller pictures",
        code="request_too_large",
    )


def _too_many(name: str, count: int, most: int) -> Problem:
    param = "messages" if name in ("pictures", "characters") else name
    return Problem(
        400,
        f"{count} {name} came; at most {most} are allowed here",
        param=param,
        code="invalid_value",
    )

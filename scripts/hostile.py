"""Requests that a server has to refuse, each with the statuses that are right for it."""

from __future__ import annotations

import base64
import io
import json
import random
import socket
import struct
import zlib
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import httpx
from PIL import Image

CHAT = "/v1/chat/completions"
Status = int | str
Send = Callable[[str, str, random.Random], Status]


def address(image: Image.Image) -> str:
    """Return a picture as a data: address."""
    held = io.BytesIO()
    image.save(held, "PNG")
    return data(held.getvalue())


def data(content: bytes) -> str:
    """Return bytes as the address of a picture, whatever they are."""
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def chat(*urls: str, **more: Any) -> dict[str, Any]:
    """Return a body that asks about pictures."""
    content: list[dict[str, Any]] = [{"type": "text", "text": "A?"}]
    content += [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return {"model": "embedded", "messages": [{"role": "user", "content": content}], **more}


def post(url: str, key: str, body: Any, **heads: str) -> int:
    """Return the status of a body."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = {"content-type": "application/json", "authorization": f"Bearer {key}", **heads}
    return httpx.post(url + CHAT, content=content, headers=head, timeout=60).status_code


def posted(make: Callable[[random.Random], Any]) -> Send:
    """Return a request whose body is made by the dice."""
    return lambda url, key, dice: post(url, key, make(dice))


def raw(url: str, content: bytes) -> Status:
    """Send bytes, hang up, and return that."""
    place = urlsplit(url)
    with socket.create_connection((place.hostname or "", place.port), timeout=10) as peer:
        peer.sendall(content)
    return "left"


def bomb(dice: random.Random) -> dict[str, Any]:
    """Return a picture that is small, and says that it is huge."""
    side = dice.choice([6_000, 20_000, 2**31 - 1])
    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(bytes(5_000_000), 9)), (b"IEND", b""))
    chunks = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in parts
    )
    return chat(data(b"\x89PNG\r\n\x1a\n" + b"".join(chunks)))


def broken(dice: random.Random) -> dict[str, Any]:
    """Return a picture that ends too early."""
    whole = address(Image.effect_noise((64, 64), 50))
    content = base64.b64decode(whole.partition(",")[2])
    return chat(data(content[: dice.randrange(8, len(content) // 2)]))


def damaged(dice: random.Random) -> bytes:
    """Return a body with its first bytes in disorder, which is never JSON."""
    body = bytearray(json.dumps(chat()).encode())
    body[0] = dice.choice(b"[}\x00\xff")
    for _ in range(5):
        body[dice.randrange(len(body))] = dice.randrange(256)
    return bytes(body)


def half(url: str, key: str, dice: random.Random) -> Status:
    """Promise a body, send a part of it, and go."""
    head = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {key}\r\n"
    rest = "content-type: application/json\r\ncontent-length: 100000\r\n\r\n"
    return raw(url, (head + rest).encode() + b'{"messages": [' * dice.randrange(1, 50))


def gone(url: str, key: str, dice: random.Random) -> Status:
    """Ask something long, and go before the answer."""
    body = json.dumps(chat(address(Image.new("RGB", (320, 320), "white")), max_tokens=200)).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {key}\r\n"
    rest = f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return raw(url, (head + rest).encode() + body)


def unlocked(url: str, key: str, dice: random.Random) -> Status:
    """Send no key, or half of it."""
    return post(url, key[: dice.randrange(len(key))] or "-", chat())


def elsewhere(url: str, key: str, dice: random.Random) -> Status:
    """Ask for a path that is none."""
    path = dice.choice(
        ["/", "/../../etc/passwd", "/v1/files", "/%2e%2e/%2e%2e/etc/passwd", "/docs"]
    )
    head = {"authorization": f"Bearer {key}"}
    return httpx.get(url + path, headers=head).status_code


def _said(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


REQUESTS: tuple[tuple[str, Send, tuple[Status, ...]], ...] = (
    ("bomb", posted(bomb), (413,)),
    ("broken picture", posted(broken), (400,)),
    ("no picture", posted(lambda dice: chat(data(dice.randbytes(2_000)))), (400,)),
    ("file", posted(lambda dice: chat("file:///etc/passwd")), (400,)),
    ("inside", posted(lambda dice: chat("http://169.254.169.254/latest/meta-data")), (400,)),
    ("large body", posted(lambda dice: b" " * 3_000_000), (413,)),
    ("values", posted(lambda dice: chat() | {"messages": [0] * 500_000}), (400,)),
    ("long text", posted(lambda dice: chat(messages=[_said("A" * 1_500_000)])), (400,)),
    ("large number", posted(lambda dice: chat(max_tokens=10**9)), (400,)),
    ("deep", posted(lambda dice: b'{"messages":' + b"[" * 200_000), (400,)),
    ("damaged", posted(damaged), (400,)),
    ("random", posted(lambda dice: dice.randbytes(500)), (400,)),
    ("unknown field", posted(lambda dice: chat(best_of=7)), (400,)),
    ("unknown model", posted(lambda dice: {**chat(), "model": "x" * 9_999}), (404,)),
    ("method", posted(lambda dice: chat(kv={"method": "sparsemm", "table": "/dev/zero"})), (400,)),
    ("kernel", posted(lambda dice: chat(kv={"method": "snapkv", "kernel": 10**12})), (400,)),
    ("words", posted(lambda dice: chat(messages=[_said("é\0")])), (400,)),
    ("marks", posted(lambda dice: chat(messages=[_said("<|image_pad|>" * 100)])), (400,)),
    ("half", half, ("left",)),
    ("gone", gone, ("left",)),
    ("no key", unlocked, (401,)),
    ("no path", elsewhere, (404,)),
    (
        "no json",
        lambda url, key, dice: post(url, key, chat(), **{"content-type": "text/plain"}),
        (415,),
    ),
    ("host", lambda url, key, dice: post(url, key, chat(), host="evil.example"), (421,)),
)

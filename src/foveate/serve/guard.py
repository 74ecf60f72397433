"""What every request passes: who asks, under which name, how it ended; nothing of us leaks out."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from foveate.serve import logs
from foveate.serve.metrics import Metrics
from foveate.serve.problems import Problem, of
from foveate.serve.settings import Settings

__all__ = ["GONE", "Guard", "Record", "noted"]

OPEN = ("/health", "/")  # the page of `add_page` asks for the key, if there is one
GONE = 499  # the client left before the answer


@dataclass
class Record:
    """What is logged of one request."""

    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    began: float = field(default_factory=time.perf_counter)
    status: int = 0
    unread: bool = False
    told: dict[str, Any] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Return how long the request has taken so far."""
        return time.perf_counter() - self.began


def noted(error: Exception, record: Record, settings: Settings) -> Problem:
    """Return what is wrong for the client's eyes, after the log has had the rest."""
    problem = of(error, settings.retry_seconds)
    record.told["code"] = problem.code
    if problem.status == 500:
        words = logs.failure(error, settings.log_prompts)
        logs.write("failed", logging.ERROR, id=record.id, **words)
    return problem


class Guard:
    """Checks key and host, turns errors into answers, counts, and writes one line a request."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics) -> None:
        self._app, self._settings, self._metrics = app, settings, metrics
        self._keys = [_digest(key.strip().encode()) for key in settings.keys]
        self._hosts = {host.lower() for host in settings.hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "websocket":  # nobody has looked at its key
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record = Record()
        record.unread = _has_body(Headers(scope=scope))
        scope.setdefault("state", {})["record"] = record

        async def heard() -> Message:
            message = await receive()
            record.unread = record.unread and bool(message.get("more_body"))
            return message

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = record.status or message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = record.id
                headers["x-content-type-options"] = "nosniff"
                headers["cache-control"] = "no-store"
                if record.unread:  # else the rest would be read, however much it is
                    headers["connection"] = "close"
            await send(message)

        try:
            await self._passed(scope, heard, told, record)
        finally:
            self._over(scope, record)

    async def _passed(self, scope: Scope, receive: Receive, send: Send, record: Record) -> None:
        """Let a request in, or answer it with what is wrong."""
        try:
            self._check(Headers(scope=scope), scope["path"])
            await self._app(scope, receive, send)
        except ClientDisconnect:
            record.status = GONE
        except asyncio.CancelledError:
            if not record.status:
                await _going_down().response()(scope, receive, send)
            raise
        except Exception as error:
            problem = noted(error, record, self._settings)
            if not record.status:
                await problem.response()(scope, receive, send)

    def _check(self, headers: Headers, path: str) -> None:
        name = _host(headers.get("host", ""))
        if self._hosts and name not in self._hosts:
            raise Problem(
                421, "this server does not answer to that host name", code="misdirected_request"
            )
        if self._keys and path not in OPEN:
            self._check_key(headers.get("authorization", ""))

    def _check_key(self, given: str) -> None:
        scheme, _, key = given.partition(" ")
        digest = _digest(key.strip().encode("latin-1"))
        # all keys are compared, so that time tells nothing of which one was close
        found = [hmac.compare_digest(digest, known) for known in self._keys]
        if scheme.lower() != "bearer" or not any(found):
            raise Problem(
                401,
                "no valid API key came; send it as `Authorization: Bearer KEY`",
                code="invalid_api_key",
                headers={"www-authenticate": "Bearer"},
            )

    def _over(self, scope: Scope, record: Record) -> None:
        route = scope.get("route")
        path = getattr(route, "path", "other")  # what clients make up is no label
        self._metrics.request(path, record.status or GONE, record.seconds)
        logs.write(
            "request",
            id=record.id,
            method=scope["method"],
            path=scope["path"][:200],
            client=(scope.get("client") or ("",))[0],
            status=record.status or GONE,
            seconds=round(record.seconds, 4),
            **record.told,
        )


def _going_down() -> Problem:
    return Problem(503, "the server is going down; ask again when it is back", code="cancelled")


def _has_body(headers: Headers) -> bool:
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _host(header: str) -> str:
    """Return a Host header without its port."""
    name = header.rpartition(":")[0] if header.rpartition(":")[2].isdecimal() else header
    return name.strip("[]").lower()

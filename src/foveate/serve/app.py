"""The server as an ASGI application, for uvicorn, Ray Serve, or an application of yours."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import Request

from foveate.serve.answering import Answers
from foveate.serve.chat import Chat
from foveate.serve.guard import Guard
from foveate.serve.metrics import CONTENT_TYPE, Metrics
from foveate.serve.problems import Problem
from foveate.serve.room import Room
from foveate.serve.settings import Settings
from foveate.serve.shapes import model

__all__ = ["create_app"]


def create_app(engine: Answers, settings: Settings | None = None) -> FastAPI:
    """Return the application; it starts the engine when it is started, and stops it at its end.

    `engine`, `settings`, `metrics` and `room` are in its `state`, for what is added to it.
    """
    settings = settings or Settings()
    room = Room(settings.room_bytes)
    metrics = Metrics(engine, room)

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        engine.start()
        try:
            yield
        finally:
            await run_sync(engine.stop)  # while those who still wait are told

    app = FastAPI(title="Foveate", lifespan=life, openapi_url=None, redirect_slashes=False)
    app.state.engine, app.state.settings = engine, settings
    app.state.metrics, app.state.room = metrics, room
    app.add_middleware(Guard, settings=settings, metrics=metrics)
    app.add_exception_handler(HTTPException, _http_problem)
    app.add_exception_handler(RequestValidationError, _validation_problem)
    app.include_router(_api(engine, settings, metrics, room))
    return app


def _api(engine: Answers, settings: Settings, metrics: Metrics, room: Room) -> APIRouter:
    """Return the paths of OpenAI's interface, and those for whoever watches the server."""
    api = APIRouter()
    created = int(time.time())
    chat = Chat(engine, settings, metrics, room)
    api.post("/v1/chat/completions")(chat.complete)

    @api.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [model(settings.model, created)]}

    @api.get("/v1/models/{name:path}")
    async def one(name: str) -> dict[str, Any]:
        if name != settings.model:
            raise Problem(404, f"there is no model {name[:80]!r}", code="model_not_found")
        return model(name, created)

    @api.get("/health")
    async def health() -> dict[str, str]:
        if not engine.is_running:
            raise Problem(503, "the engine does not run; the server has to be started again")
        return {"status": "ok"}

    @api.get("/metrics")
    async def measured() -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE)

    return api


async def _http_problem(request: Request, error: Exception) -> JSONResponse:
    """Answer an unknown path or a wrong verb as everything else is answered."""
    assert isinstance(error, HTTPException)
    path = request.url.path[:80]
    words = {404: f"there is no path {path!r}", 405: f"{path!r} is not for {request.method}"}
    message = words.get(error.status_code, str(error.detail))
    code = {404: "unknown_url", 405: "method_not_allowed"}.get(error.status_code)
    return Problem(error.status_code, message, code=code, headers=error.headers).response()


async def _validation_problem(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return Problem(400, str(error.errors()[0]["msg"]), code="invalid_value").response()

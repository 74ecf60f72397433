"""`GET /`: a page on which people drop a picture, ask, and move the budget; off unless added."""

from __future__ import annotations

import base64
import io
from importlib import resources
from typing import Any

import anyio
from anyio.to_thread import run_sync
from fastapi import APIRouter, FastAPI
from fastapi.responses import HTMLResponse, JSONResponse, Response
from pydantic import ValidationError
from starlette.requests import Request

import foveate
from foveate.cli.models import Loaded
from foveate.errors import InputError
from foveate.report.comparison import told_keep
from foveate.report.document import digest, frame, script, style
from foveate.report.words import difference
from foveate.serve import intake
from foveate.serve.problems import Problem
from foveate.serve.schema import Two
from foveate.serve.settings import Settings
from foveate.serve.ui.look import Look
from foveate.tiny.documents import document

__all__ = ["add_page", "check"]

KEEPS = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7)
START = 0.1
LONGEST = 256  # tokens of an answer
EXAMPLES = (("rows", 65, 0), ("table", 5, 3), ("receipt", 2, 1))  # layout, seed, first question
TRIES = 4  # questions that are offered with an example
STYLES = ("picture.css", "asking.css", "live.css")
SCRIPTS = (
    "client.js", "picture.js", "inquiry.js", "told.js", "form.js", "tried.js", "live.js",
)  # fmt: skip


def add_page(app: FastAPI) -> None:
    """Add the page, and what it asks, to an application of `create_app` that has an `Engine`."""
    settings: Settings = app.state.settings
    check(settings)
    engine, room = app.state.engine, app.state.room
    loaded = Loaded(settings.model, engine.model, engine.processor)
    look = Look(engine, settings, app.state.metrics, room, loaded)
    text, headers = _page(settings)
    ui, turn = APIRouter(), anyio.CapacityLimiter(1)
    ui.post("/ui/look")(look.complete)

    @ui.get("/")
    async def page() -> Response:
        return HTMLResponse(text, headers=headers)

    @ui.post("/ui/difference")
    async def compared(request: Request) -> Response:
        share = room.share()
        try:
            two = _two(await intake.body(request, settings, share))
        finally:
            share.free()
        return JSONResponse({"parts": await run_sync(difference, two.full, two.said, limiter=turn)})

    app.include_router(ui)


def check(settings: Settings) -> None:
    """Raise `InputError` where a page could not ask what it has to."""
    if settings.methods is not None and "full" not in settings.methods:
        raise InputError(
            "the page compares with the full cache, which is not open to clients; add full to "
            "--client-methods"
        )


def _two(body: bytes) -> Two:
    try:
        return Two.model_validate_json(body)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(map(str, found["loc"])) or "body"
        raise Problem(400, f"{place}: {found['msg']}", param=place, code="invalid_value") from None


def _page(settings: Settings) -> tuple[str, dict[str, str]]:
    """Return the page, and the headers that allow it what is in it and nothing else."""
    styles = style(*map(_text, STYLES))
    scripts = script(*map(_text, SCRIPTS))
    head = '<link rel="icon" href="data:,">'
    text = frame(settings.model, head, styles, scripts, server=_told(settings))
    policy = (
        "default-src 'none'; connect-src 'self'; img-src data:; "
        f"style-src {digest(styles)}; script-src {digest(scripts)}; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    headers = {
        "content-security-policy": policy,
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "referrer-policy": "no-referrer",
        "x-frame-options": "DENY",
    }
    return text, headers


def _told(settings: Settings) -> dict[str, Any]:
    """Return what the page has to know of its server."""
    known = settings.methods or [info.name for info in foveate.methods()]
    own = None if settings.method == "full" else settings.method
    methods = dict.fromkeys([*([own] if own else []), *known])
    keep = settings.options.get("keep")
    share = keep if isinstance(keep, float) and keep < 1 else START
    return {
        "version": foveate.__version__,
        "model": settings.model,
        "keyed": bool(settings.keys),
        "own": own,
        "methods": [name for name in methods if name != "full"],
        "budgets": [[told_keep(one), one] for one in sorted({*KEEPS, share})],
        "budget": told_keep(share),
        "longest": min(LONGEST, settings.max_new_tokens),
        "pixels": settings.pixels,
        "bytes": min(settings.picture_bytes, settings.body_bytes // 2),
        "examples": [_example(*one) for one in EXAMPLES],
    }


def _example(layout: str, seed: int, first: int) -> dict[str, Any]:
    """Return a generated document as a picture, and some questions about it."""
    made = document(seed, layout=layout)
    asked = [question.text for question in made.questions]
    file = io.BytesIO()
    made.pages[0].save(file, "PNG", optimize=True)
    return {
        "name": layout,
        "src": "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii"),
        "questions": [*asked[first:], *asked[:first]][:TRIES],
    }


def _text(name: str) -> str:
    return (resources.files("foveate.serve.ui") / "web" / name).read_text(encoding="utf-8")

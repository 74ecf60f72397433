"""The page: one HTML file with its own data, styles and scripts, which asks nobody for anything."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from foveate.errors import InputError
from foveate.report.comparison import Comparison

__all__ = ["check", "digest", "frame", "island", "page", "script", "style", "write"]

STYLES = (
    "page.css", "panel.css", "controls.css", "details.css", "words.css", "forced.css", "print.css",
)  # fmt: skip
SCRIPTS = (
    "dom.js", "data.js", "paint.js", "stage.js", "controls.js", "answer.js",
    "gallery.js", "layers.js", "curve.js", "words.js", "numbers.js", "main.js",
)  # fmt: skip


def style(*more: str) -> str:
    """Return the styles of the page, and more behind them."""
    return "\n".join([*map(_text, STYLES), *more])


def script(*more: str) -> str:
    """Return the scripts of the page and more, which share one scope and leave `window.foveate`."""
    return '(() => {\n"use strict";\n' + "\n".join([*map(_text, SCRIPTS), *more]) + "})();\n"


def page(comparison: Comparison | Mapping[str, Any]) -> str:
    """Return the page of a comparison, or of what its `to_dict` returned."""
    from foveate import __version__

    values = comparison.to_dict() if isinstance(comparison, Comparison) else dict(comparison)
    styles, scripts = style(), script()
    policy = (
        f"default-src 'none'; img-src data:; style-src {digest(styles)}; "
        f"script-src {digest(scripts)}; base-uri 'none'; form-action 'none'"
    )
    head = (
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="referrer" content="no-referrer">'
    )
    told = {"version": __version__, **values}
    return frame(values["question"], head, styles, scripts, comparison=told)


def frame(about: str, head: str, styles: str, scripts: str, **told: Mapping[str, Any]) -> str:
    """Return a page about something, with one value that its scripts find under its name."""
    ((name, values),) = told.items()
    return Template(_text("page.html")).substitute(
        title=html.escape(f"{about[:80]} · Foveate"),
        head=head,
        style=styles,
        script=scripts,
        name=name,
        data=island(values),
    )


def check(path: str | Path) -> None:
    """Raise `InputError` where no page can be written; nothing is made or changed."""
    path = Path(path).expanduser()
    if path.is_dir():
        raise _unwritable(path, "it is a folder")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise _unwritable(path, "there is no such folder, or it is closed to you")


def _unwritable(path: Path, why: str | None) -> InputError:
    return InputError(
        f"the report cannot be written to {path} ({why}); name a file in a folder that you may "
        "write to"
    )


def write(comparison: Comparison | Mapping[str, Any], path: str | Path) -> Path:
    """Write the page to a file, and return where; raises `InputError` where that cannot be."""
    path = Path(path).expanduser()
    try:
        path.write_text(page(comparison), encoding="utf-8")
    except OSError as error:
        raise _unwritable(path, error.strerror) from error
    return path


def island(values: Mapping[str, Any]) -> str:
    r"""Return values as JSON that ends no script element, whatever is in them.

    >>> island({"said": "</script>"})
    '{"said":"\\u003c/script\\u003e"}'
    """
    text = json.dumps(values, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def digest(text: str) -> str:
    """Return what a policy calls the one style or script that it allows."""
    found = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(found).decode('ascii')}'"


def _text(name: str) -> str:
    return (resources.files("foveate.report") / "web" / name).read_text(encoding="utf-8")

"""The `kv` object of a request as a method: names and numbers only, nothing that opens a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import foveate
from foveate.errors import InputError
from foveate.method import Method
from foveate.methods.own import made
from foveate.serve.problems import Problem
from foveate.serve.schema import Choice
from foveate.serve.settings import Settings

__all__ = ["Chosen", "chosen"]

MOST = 4096  # of a number in an option: no window or kernel that fills the memory
MOST_KEPT = 1 << 30
LONGEST = 64  # name


@dataclass(frozen=True)
class Chosen:
    """The method of a request, None for the engine's own; what clients call it."""

    method: Method | None
    full: bool
    told: Mapping[str, Any]


def chosen(choice: Choice | None, settings: Settings) -> Chosen:
    """Return what a client asks for; what it leaves out is as the server was told."""
    asked = {} if choice is None else choice.model_dump(exclude_none=True)
    name = asked.pop("method", None)
    if name is not None:
        _check_name(name, settings.methods)
    _check_options(asked)
    if name is None:
        if settings.method is None:
            if asked:
                raise _problem("kv has no method, and the server's own has no name; give kv.method")
            return Chosen(None, False, {})
        name, asked = settings.method, {**settings.options, **asked}
    keep = {"keep": asked["keep"]} if "keep" in asked else {}
    told = {"method": name, **keep}
    if choice is None:
        return Chosen(None, False, told)
    if name == "full":
        if asked:
            raise _problem("kv.method 'full' keeps everything; leave keep and options out")
        return Chosen(None, True, told)
    make = made if name == settings.method else foveate.method  # module:function is the operator's
    try:
        return Chosen(make(name, **asked), False, told)
    except (InputError, TypeError) as error:
        raise _problem(f"kv: {error}") from None


def _check_name(name: str, allowed: tuple[str, ...] | None) -> None:
    parts = name.split("+")
    if len(name) > LONGEST or len(parts) > 2:
        raise _problem("kv.method is too long; give a name, or two with a plus between them")
    for part in parts:
        if allowed is not None and part not in allowed:
            shown = ", ".join(allowed)
            raise _problem(f"kv.method {part!r} is not open to clients here; give one of {shown}")


def _check_options(given: Mapping[str, Any]) -> None:
    words = _words()
    if any(len(option) > LONGEST for option in given):
        raise _problem("kv has an option with a very long name, which no method has")
    for option, value in given.items():
        allowed = words.get(option.removeprefix("host_"), set())
        if option == "keep":
            if not isinstance(value, str) and value > MOST_KEPT:
                raise _problem(f"kv.keep is too much; at most {MOST_KEPT:,} tokens can be named")
            continue
        if isinstance(value, str):
            if value not in allowed:
                shown = " or ".join(map(repr, sorted(allowed))) or "a number, true or false"
                raise _problem(f"kv.{option}={value[:60]!r} is not for clients; give {shown}")
        elif not isinstance(value, bool | int | float | None) or (value and abs(value) > MOST):
            raise _problem(
                f"kv.{option} is not for clients as it came; give a word of the method, true, "
                f"false, or a number up to {MOST}"
            )


@cache
def _words() -> dict[str, set[str]]:
    """Return the words that options may be: none where any text may come, which may be a file."""
    words: dict[str, set[str]] = {}
    files: set[str] = set()
    for info in foveate.methods():
        for option in info.options:
            quoted = {word.strip("'") for word in option.allowed if word.startswith("'")}
            words.setdefault(option.name, set()).update(quoted)
            files |= {option.name} if "str" in option.allowed else set()
    hosts = {info.name for info in foveate.methods()}
    return {name: known for name, known in words.items() if name not in files} | {"host": hosts}


def _problem(message: str) -> Problem:
    return Problem(400, message, param="kv", code="invalid_value")

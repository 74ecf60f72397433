"""What a preset says about itself: its paper, and the options in its signature."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar, get_args, get_origin, get_type_hints

from foveate.method import Method

__all__ = ["MethodInfo", "Option", "Preset", "describe", "paper"]


class Preset(Protocol):
    """A function that makes a method, with the paper it is from."""

    __name__: str
    paper: str
    arxiv: str

    def __call__(self, *args: Any, **options: Any) -> Method:
        """Return the method."""


F = TypeVar("F", bound=Callable[..., Method])


@dataclass(frozen=True, slots=True)
class Option:
    """One option: its name, its default, and what it may be (the words, or the name of the type)."""

    name: str
    default: Any
    allowed: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name}={self.default!r} ({' | '.join(self.allowed)})"


@dataclass(frozen=True, slots=True)
class MethodInfo:
    """One method: its paper, its options, and in which points it differs from the paper."""

    name: str
    paper: str
    arxiv: str
    options: tuple[Option, ...]
    notes: str


def paper(title: str, arxiv: str = "") -> Callable[[F], F]:
    """Return a decorator that writes the paper's title and arXiv number on a preset."""

    def mark(preset: F) -> F:
        preset.paper, preset.arxiv = title, arxiv  # type: ignore[attr-defined]
        return preset

    return mark


def describe(preset: Preset) -> MethodInfo:
    """Return what `foveate methods` shows about a preset."""
    hints = get_type_hints(preset)
    options = tuple(
        Option(option.name, option.default, allowed(hints[option.name]))
        for option in inspect.signature(preset).parameters.values()
    )
    docstring = inspect.getdoc(preset) or ""
    _, _, notes = docstring.partition("Differs from the paper:")
    return MethodInfo(preset.__name__, preset.paper, preset.arxiv, options, " ".join(notes.split()))


def allowed(hint: Any) -> tuple[str, ...]:
    """Return the words of a `Literal`, or the names of the types of a union."""
    if get_origin(hint) is Literal:
        return tuple(map(repr, get_args(hint)))
    return tuple(part.__name__ for part in get_args(hint) or (hint,))

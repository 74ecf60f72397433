"""What a preset says about itself: its paper, and the options in its signature."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from foveate.method import Method

__all__ = ["MethodInfo", "Option", "describe", "paper"]


F = TypeVar("F", bound=Callable[..., Method])


@dataclass(frozen=True, slots=True)
class Option:
    """One option: its name, its default, and the words or types that it may be."""

    name: str
    default: Any
    allowed: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name}={self.default!r} ({' | '.join(self.allowed)})"


@dataclass(frozen=True, slots=True)
class MethodInfo:
    """One method: its paper, its options, and in which points it differs from the paper.

    `about` says in a sentence what it does; `more` names options that it takes besides, such as
    those of a method inside.
    """

    name: str
    paper: str
    arxiv: str
    options: tuple[Option, ...]
    notes: str
    more: str = ""
    about: str = ""


def paper(title: str, arxiv: str = "") -> Callable[[F], F]:
    """Return a decorator that writes the paper's title and arXiv number on a preset."""

    def mark(preset: F) -> F:
        vars(preset).update(paper=title, arxiv=arxiv)
        return preset

    return mark


def describe(preset: Callable[..., Method]) -> MethodInfo:
    """Return what `foveate methods` shows about a preset."""
    hints = get_type_hints(preset)
    listed = inspect.signature(preset).parameters.values()
    options = tuple(
        Option(option.name, option.default, allowed(hints[option.name]))
        for option in listed
        if option.kind is not option.VAR_KEYWORD
    )
    more = [option.name for option in listed if option.kind is option.VAR_KEYWORD]
    docstring = inspect.getdoc(preset) or ""
    _, _, notes = docstring.partition("Differs from the paper:")
    return MethodInfo(
        preset.__name__,
        vars(preset)["paper"],
        vars(preset)["arxiv"],
        options,
        " ".join(notes.split()),
        " ".join(more).replace("_", " "),
        about(docstring),
    )


def about(docstring: str) -> str:
    """Return the first sentence of a preset without its name.

    >>> about("Return KNorm (arXiv 2406.11430): the tokens with the shortest keys stay.")
    'The tokens with the shortest keys stay.'
    """
    first = docstring.partition("\n")[0].removeprefix("Return ")
    sentence = first.partition(": ")[2] or first
    return sentence if sentence.startswith("`") else sentence[:1].upper() + sentence[1:]


def allowed(hint: Any) -> tuple[str, ...]:
    """Return the words of every `Literal` in a union, and the names of its other types."""
    if get_origin(hint) is Literal:
        return tuple(map(repr, get_args(hint)))
    parts = get_args(hint) or (hint,)
    return tuple(
        word
        for part in parts
        for word in (allowed(part) if get_origin(part) is Literal else (named(part),))
    )


def named(hint: Any) -> str:
    """Return the name of a type as it is written in Python."""
    return "None" if hint is type(None) else str(hint.__name__)

"""One question about some pictures, answered with the full cache and with smaller ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from foveate.cli import answers
from foveate.cli.models import Loaded
from foveate.cli.options import parse_entry
from foveate.errors import FoveateError, InputError
from foveate.eval.entry import Entry, Keep
from foveate.eval.fidelity import references
from foveate.method import Method
from foveate.report.runs import Asked, failed, look
from foveate.report.shown import shown
from foveate.report.words import Piece, prompt

__all__ = ["FORMAT", "Comparison", "collect"]

FORMAT = 1  # of the values; a page refuses others
Tell = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Comparison:
    """What a page shows, as plain values; `runs` are by method, and by budget within a method."""

    model: str
    question: str
    visual: int
    full: dict[str, Any] = field(repr=False)
    runs: tuple[dict[str, Any], ...] = field(repr=False)
    prompt: tuple[Piece, ...] = field(repr=False)
    pictures: tuple[dict[str, Any], ...] = field(repr=False)
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as JSON can hold it."""
        return {"format": FORMAT, **vars(self)}

    def summary(self) -> list[dict[str, Any]]:
        """Return the numbers and answers of the full cache and of all runs, without the marks."""
        packed = {"kept_visual", "kept_text", "window", "look", "layers", "parts"}
        rows = [{"method": "full", "keep": 1.0, **self.full}, *self.runs]
        return [{name: row[name] for name in row if name not in packed} for row in rows]


def collect(
    loaded: Loaded,
    images: Sequence[Image.Image],
    question: str,
    methods: Sequence[Entry | str] = ("aircache",),
    keeps: Sequence[Keep] = (0.5, 0.1, 0.01),
    *,
    max_new_tokens: int = 64,
    inputs: Any = None,
    measured: bool = True,
    tell: Tell | None = None,
    **settings: Any,
) -> Comparison:
    """Return what every method keeps and answers at every budget, beside the full cache.

    A method is a name, or one with options such as "snapkv(window=16)". `inputs` is one prompt as
    the processor made it, where that is more than images and a question. `measured` also follows
    the full answer token by token, for shares of attention and divergences; `settings` are
    `storage` and `quantized` as for `compress`. A run that fails says why among the others; if all
    fail, or all budgets of a method are impossible, the first error is raised.
    """
    tell = tell or _silent
    built = _built(methods, keeps)
    tell(0, len(built) + 1, "full cache")
    inputs = answers.prepare(loaded, images, question) if inputs is None else inputs
    seen = shown(loaded, inputs, images)
    if not seen.visual:
        raise InputError(
            "the prompt has no visual tokens, so there is nothing to show; add a picture"
        )
    reference = None
    if measured:
        reference = references(loaded.model, inputs, max_new_tokens=max_new_tokens)
    full = answers.told(loaded, inputs, None, max_new_tokens).answer
    asked = Asked(loaded, inputs, seen, full, reference, max_new_tokens, settings)
    runs: list[dict[str, Any]] = []
    errors: list[FoveateError] = []
    for entry, keep, method in built:
        tell(len(runs) + 1, len(built) + 1, f"{entry.label}, keep {keep}")
        try:
            if isinstance(method, FoveateError):
                raise method
            found = asked.run(method)
        except FoveateError as error:
            errors.append(error)
            found = failed(error)
        runs.append({"method": entry.label, "keep": keep, "budget": told_keep(keep), **found})
    if len(errors) == len(built):
        raise errors[0]
    return Comparison(
        loaded.name,
        question,
        len(seen.visual),
        {**asked.full_values(), "look": look(reference)},
        tuple(runs),
        tuple(prompt(loaded.processor, seen.ids, seen.owners)),
        tuple(seen.pictures),
        tuple(seen.notes),
    )


def _built(
    methods: Sequence[Entry | str], keeps: Sequence[Keep]
) -> list[tuple[Entry, Keep, Method | FoveateError]]:
    """Return every method at every budget, or why it cannot be at that one; raise if at none."""
    built: list[tuple[Entry, Keep, Method | FoveateError]] = []
    entries = [parse_entry(x) if isinstance(x, str) else x for x in methods]
    _once("method", [entry.label for entry in entries])
    _once("keep", [told_keep(keep) for keep in keeps])
    for entry in entries:
        if entry.preset == "full":
            raise InputError("the full cache is shown anyway; name another method than full")
        found = [(entry, keep, _method(entry, keep)) for keep in keeps]
        errors = [method for _, _, method in found if isinstance(method, FoveateError)]
        if errors and len(errors) == len(found):
            raise errors[0]
        built += found
    if not built:
        raise InputError("no method or no budget came; give at least one of each")
    return built


def _once(what: str, names: Sequence[str]) -> None:
    """Raise `InputError` for a name that a page could not tell from another."""
    for number, name in enumerate(names):
        if name in names[:number]:
            raise InputError(f"{what} {name} came twice; give it once")


def _method(entry: Entry, keep: Keep) -> Method | FoveateError:
    try:
        method = entry.method(keep)
    except FoveateError as error:
        return error
    assert method is not None
    return method


def told_keep(keep: Keep) -> str:
    """Return a budget as people read it.

    >>> told_keep(0.015), told_keep(64), told_keep(1), told_keep("auto")
    ('1.5 %', '64 tokens', '1 token', 'auto')
    """
    if isinstance(keep, float):
        return f"{100 * keep:g} %"
    if isinstance(keep, int):
        return f"{keep} token{'' if keep == 1 else 's'}"
    return keep


def _silent(done: int, total: int, what: str) -> None:
    """Tell nobody."""

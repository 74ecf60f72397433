"""Questions about documents that are drawn from a seed: the source of the built-in tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, overload

from foveate.errors import InputError
from foveate.eval.task import Message, Part, Sample
from foveate.tiny.documents import HELD_OUT, Document, Question, document
from foveate.tiny.layouts import LAYOUTS

FIRST_SEED = 1_000_000  # of documents; training draws from far above
LANE = 250_000  # documents of one seed for one source
LANES = 64
SPAN = LANES * LANE  # documents of one seed
MOST = 10_000  # samples of one seed: each may draw LANE // MOST documents until one has a question
INITIALS = 12  # letters that keys begin with where they are counted
SKILLS = ("lookup", "row", "reverse", "count")


@dataclass(frozen=True)
class Documents:
    """Documents of the embedded model, one for each sample, and what is asked about them.

    `skill` is what the last question asks; `asked` is "after" the page, "before" it, "around" it
    (before and after), "last" behind other questions (`history`) and their right answers, or
    "second", when the model has answered a question about another part of the page. Layouts take
    turns. `keys` and `values` are shortest and longest lengths, `distractors` the share of keys
    that differ from another by one letter. Sources with different lanes share no document, so that
    their scores can be pooled.
    """

    skill: str = "lookup"
    grid: tuple[int, int] = (16, 16)
    layouts: tuple[str, ...] = tuple(LAYOUTS)
    pages: int = 1
    asked: str = "after"
    keys: tuple[int, int] = (1, 3)
    values: tuple[int, int] = (1, 6)
    distractors: float = 0.3
    history: int = 2
    lane: int = 0

    def __post_init__(self) -> None:
        _check("skill", self.skill, SKILLS)
        _check("order", self.asked, tuple(ORDERS))
        if not self.layouts:
            raise InputError(f"no layout came; give some of {', '.join(LAYOUTS)}")
        if self.asked == "last" and self.history < 1:
            raise InputError(f"a history of {self.history} questions; give 1 or more")
        if not 0 <= self.lane < LANES:
            raise InputError(f"lane {self.lane} came; give a number from 0 to {LANES - 1}")
        for layout in self.layouts:
            _check("layout", layout, tuple(LAYOUTS))

    def samples(self, number: int | None, seed: int) -> Sequence[Sample]:
        """Return so many samples, each drawn when it is looked at."""
        if number is None or not 0 < number <= MOST:
            raise InputError(
                f"{number} documents were asked for; they are drawn without end, so give a number "
                f"from 1 to {MOST:,}"
            )
        first = FIRST_SEED + seed * SPAN
        if seed < 0 or first + SPAN > HELD_OUT.stop:
            most = (HELD_OUT.stop - FIRST_SEED) // SPAN - 1
            raise InputError(f"seed {seed} has no documents; give a number from 0 to {most}")
        return _Drawn(self, number, first + self.lane * LANE)

    def draw(self, index: int, first: int) -> Sample:
        """Return the sample of that index, of the documents that begin at that seed."""
        layout = self.layouts[index % len(self.layouts)]
        skills = tuple({"lookup": None, self.skill: None})
        for seed in range(first + index, first + LANE, MOST):
            drawn = document(
                seed,
                layout=layout,
                grid=self.grid,
                pages=self.pages,
                keys=self.keys,
                values=self.values,
                distractors=self.distractors,
                initials=INITIALS if self.skill == "count" else None,
                skills=skills,
            )
            found = ORDERS[self.asked](self, drawn)
            if found is not None:
                turns, last = found
                return Sample(
                    f"{layout}-{seed}", turns, (last.answer,), _facts(drawn, last, layout)
                )
        raise InputError(
            f"layout {layout!r} leaves no room for a {self.skill} question on pages of "
            f"{self.grid[0]} x {self.grid[1]} cells; take larger pages or another layout"
        )


class _Drawn(Sequence[Sample]):
    """Samples that are drawn when they are looked at."""

    def __init__(self, source: Documents, number: int, first: int) -> None:
        self.source, self.number, self.first = source, number, first

    def __len__(self) -> int:
        return self.number

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        chosen = range(self.number)[index]
        if isinstance(chosen, range):
            return [self.source.draw(i, self.first) for i in chosen]
        return self.source.draw(chosen, self.first)


Turns = tuple[tuple[Message, ...], ...]
Found = tuple[Turns, Question] | None  # what is said, and the question that counts


def _after(source: Documents, drawn: Document) -> Found:
    last = _asked(source, drawn)
    return None if last is None else (((_user(*drawn.pages, last.text),),), last)


def _before(source: Documents, drawn: Document) -> Found:
    last = _asked(source, drawn)
    return None if last is None else (((_user(last.text, *drawn.pages),),), last)


def _around(source: Documents, drawn: Document) -> Found:
    last = _asked(source, drawn)
    return None if last is None else (((_user(last.text, *drawn.pages, last.text),),), last)


def _last(source: Documents, drawn: Document) -> Found:
    """The last question behind others, whose answers are right."""
    last = _asked(source, drawn)
    others = [q for q in drawn.questions if q.skill == "lookup" and last and q.cells != last.cells]
    if last is None or len(others) < source.history:
        return None
    said: list[Message] = []
    pages: tuple[Part, ...] = drawn.pages
    for question in others[: source.history]:
        said += [_user(*pages, question.text), Message("assistant", (question.answer,))]
        pages = ()
    return ((*said, _user(last.text)),), last


def _second(source: Documents, drawn: Document) -> Found:
    """A question behind one that the model answers, at least half a page away."""
    last = _asked(source, drawn)
    for question in drawn.questions:
        if last and question.skill == "lookup" and question.text != last.text:
            if last.skill == "count" or _far(drawn, question, last):
                return ((_user(*drawn.pages, question.text),), (_user(last.text),)), last
    return None


ORDERS: dict[str, Callable[[Documents, Document], Found]] = {
    "after": _after,
    "before": _before,
    "around": _around,
    "last": _last,
    "second": _second,
}


def _asked(source: Documents, drawn: Document) -> Question | None:
    return next((q for q in drawn.questions if q.skill == source.skill and q.cells), None)


def _far(drawn: Document, one: Question, other: Question) -> bool:
    width = drawn.grid[1]
    rows = abs(one.cells[0] // width - other.cells[0] // width)
    return one.page != other.page or 2 * rows >= drawn.grid[0]


def _user(*parts: Part) -> Message:
    return Message("user", parts)


def _facts(drawn: Document, last: Question, layout: str) -> dict[str, Any]:
    """Return where the answer is written, counted over the visual tokens of all pages, and more."""
    return {
        "layout": layout,
        "skill": last.skill,
        "page": last.page,
        "length": len(last.answer),
        "evidence": drawn.evidence(last),
    }


def _check(what: str, name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        raise InputError(f"unknown {what} {name!r}; known are {', '.join(known)}")

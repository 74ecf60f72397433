"""Tables of a study's cells: columns and rows of text, with intervals and marks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

from foveate.eval.entry import FULL
from foveate.eval.judging.compared import SEED, arrow, joined, mean, pairs, percent, reference
from foveate.eval.judging.results import Scored, averaged, scored
from foveate.eval.judging.stats import paired
from foveate.eval.study import Axis, Layout, Printed, Study

__all__ = ["printed_table", "tables", "text_of"]

Key = tuple[str, ...]
ANY = ""  # in a key: whatever the name is
TOGETHER = "all"
HEADS: Mapping[Axis, str] = {
    "entry": "method",
    "setting": "setting",
    "host": "method",
    "task": "task",
    "family": "task",
    "tokens": "visual tokens",
    "keep": "kept",
}


def tables(study: Study, result: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return every table of a study by name: `title`, `columns`, `rows`, perhaps `source`."""
    cells = scored(result)
    made = {layout.name: _Sheet(study, layout, cells).table() for layout in study.layouts}
    return made | {printed.name: printed_table(printed) for printed in study.printed}


def printed_table(printed: Printed) -> dict[str, Any]:
    """Return what a paper prints as a table with its own source."""
    return {
        "title": printed.title,
        "source": printed.source,
        "columns": list(printed.columns),
        "rows": [list(row) for row in printed.rows],
    }


def name_of(cell: Scored, axis: Axis) -> str:
    """Return what a cell is called along one axis."""
    family, _, tokens = cell.cell.task.rpartition("-")
    setting, _, host = cell.cell.entry.partition(" on ")
    return {
        "entry": cell.cell.entry,
        "setting": setting,
        "host": host,
        "task": cell.cell.task,
        "family": family,
        "tokens": tokens,
        "keep": cell.cell.keep,
    }[axis]


def text_of(axis: Axis, name: str) -> str:
    """Return the heading of a name: shares in percent, numbers as they are."""
    if axis == "keep" and "." in name:
        return f"{100 * float(name):.10g}%"
    if axis in ("entry", "setting") and name == FULL.label:
        return "full cache"
    return name


@dataclass(frozen=True)
class _Sheet:
    """One table while it is made."""

    study: Study
    layout: Layout
    cells: Sequence[Scored]
    _tasks: dict[frozenset[tuple[Axis, str]], set[tuple[str, int]]] = field(default_factory=dict)

    def table(self) -> dict[str, Any]:
        """Return columns and rows as text."""
        down = self.keys(self.layout.rows)
        if self.layout.shows == "tasks":
            down = [key for key in down if key[-1] != FULL.label]
        across = self.keys(self.layout.columns)
        if self.layout.together:
            across = [*across, *dict.fromkeys(self.all_tasks(key) for key in across)]
        if self.layout.ordered:
            down.sort(key=lambda key: -self.worth(key, across))
        heads = [HEADS[axis] for axis in self.layout.rows]
        rows = []
        for key in down:
            rows.append([*self.named(self.layout.rows, key), *(self.cell(key, k) for k in across)])
            if key[-1] in self.layout.over:
                rows.append([*key[:-1], "difference", *(self.step(key, k) for k in across)])
        names = (self.named(self.layout.columns, key) for key in across)
        columns = [*heads, *(" ".join(filter(None, words)) for words in names)]
        return {"title": self.title(), "columns": columns, "rows": rows}

    def title(self) -> str:
        """Return the title, and how many samples a task has with one method, all seeds together."""
        numbers: Counter[tuple[str, str, str]] = Counter()
        for cell in self.cells:
            numbers[cell.cell.task, cell.cell.entry, cell.cell.keep] += len(cell.scores)
        least, most = min(numbers.values()), max(numbers.values())
        told = str(least) if least == most else f"{least} to {most}"
        return f"{self.layout.title} (n = {told} for each task)"

    def keys(self, axes: Sequence[Axis]) -> list[Key]:
        """Return the keys along some axes in the study's order, the full cache first."""
        orders = {"task": list(self.study.tasks), "keep": [str(k) for k in self.study.keeps]}
        orders["entry"] = [FULL.label, *(entry.label for entry in self.study.entries)]

        def place(cell: Scored) -> tuple[int, ...]:
            found = (getattr(cell.cell, axis) for axis in ("task", "entry", "keep"))
            return tuple(
                orders[axis].index(name) if name in orders[axis] else len(orders[axis])
                for axis, name in zip(("task", "entry", "keep"), found, strict=True)
            )

        alone = all(cell.cell.entry == FULL.label for cell in self.shown)
        by_entry = alone or any(axis in ("entry", "setting") for axis in axes)
        keys = []
        for cell in sorted(self.shown, key=place):
            full = cell.cell.entry == FULL.label
            if full and not by_entry:
                continue
            keys.append(
                tuple(
                    ANY if full and axis in ("keep", "host") else name_of(cell, axis)
                    for axis in axes
                )
            )
        return sorted(dict.fromkeys(keys), key=lambda key: self.order(axes, key, keys))

    def order(self, axes: Sequence[Axis], key: Key, keys: list[Key]) -> tuple[int, ...]:
        """Return where a key comes: by its first name's first place, then by its second's."""
        return tuple(
            [name for name in dict.fromkeys(k[i] for k in keys)].index(key[i])
            for i in range(len(axes))
        )

    @cached_property
    def shown(self) -> list[Scored]:
        """Return the cells that the layout is about."""
        keeps = {str(keep) for keep in self.layout.keeps}
        entries, families = {*self.layout.entries}, {*self.layout.families}
        return [
            cell
            for cell in self.cells
            if (not families or name_of(cell, "family") in families)
            and (
                cell.cell.entry == FULL.label
                or (
                    (not keeps or cell.cell.keep in keeps)
                    and (not entries or cell.cell.entry in entries)
                )
            )
        ]

    def all_tasks(self, key: Key) -> Key:
        """Return the key that takes all tasks together."""
        axes = self.layout.columns
        return tuple(
            ANY if axis in ("task", "family") else k for axis, k in zip(axes, key, strict=True)
        )

    def named(self, axes: Sequence[Axis], key: Key) -> list[str]:
        """Return the headings of a key."""
        named = []
        for axis, name in zip(axes, key, strict=True):
            if name == ANY and axis in ("task", "family"):
                name = TOGETHER
            named.append(text_of(axis, name))
        return named

    def at(self, down: Key, across: Key) -> list[Scored]:
        """Return the cells that both keys mean, none if some of their tasks were not asked yet."""
        wanted = [*zip((*self.layout.rows, *self.layout.columns), (*down, *across), strict=True)]
        found = [cell for cell in self.shown if _fits(cell, wanted)]
        asked = frozenset(pair for pair in wanted if pair[0] in ("task", "family", "tokens"))
        return found if {_asked(cell) for cell in found} == self.tasks(asked) else []

    def tasks(self, wanted: frozenset[tuple[Axis, str]]) -> set[tuple[str, int]]:
        """Return tasks and seeds that are shown and have these names."""
        if wanted not in self._tasks:
            self._tasks[wanted] = {_asked(c) for c in self.shown if _fits(c, [*wanted])}
        return self._tasks[wanted]

    def worth(self, down: Key, across: Iterable[Key]) -> float:
        """Return what rows are ordered by, the full cache first."""
        if down[-1] == FULL.label:
            return float("inf")
        return sum(mean(joined(self.at(down, key))) for key in across)

    def cell(self, down: Key, across: Key) -> str:
        """Return one cell of the table."""
        found = self.at(down, across)
        if not found:
            return ""
        if self.layout.shows == "tasks":
            return self.counted(found)
        if self.layout.shows != "score":
            values = [
                value for cell in found if (value := cell.shown(self.layout.shows)) is not None
            ]
            return f"{averaged(self.layout.shows, values):.3f}" if values else ""
        scores = joined(found)
        failed = sum(score is None for score in scores)
        told = [percent(scores)] if failed < len(scores) else []
        if mark := self.mark(found):
            told.append(mark)
        return " ".join([*told, f"({failed} failed)"] if failed else told)

    def mark(self, found: Sequence[Scored]) -> str:
        """Return an arrow where the difference to the reference is not by chance."""
        entries = {cell.cell.entry for cell in found}
        if FULL.label in entries:
            return ""
        beside = self.layout.beside or self.study.reference
        return arrow(*pairs(found, self.cells, partial(reference, beside)))

    def counted(self, found: Sequence[Scored]) -> str:
        """Return in how many tasks the difference to the reference is not by chance, either way."""
        tasks = dict.fromkeys(cell.cell.task for cell in found)
        marks = [self.mark([cell for cell in found if cell.cell.task == task]) for task in tasks]
        return f"{marks.count('↑')} ↑ {marks.count('↓')} ↓"

    def step(self, down: Key, across: Key) -> str:
        """Return the difference to the entry that a row is over, with its interval and mark."""
        found = self.at(down, across)
        mine, theirs = pairs(found, self.cells, lambda entry: self.layout.over[entry])
        if not mine:
            return ""
        difference, (low, high), _ = paired(mine, theirs, SEED)
        told = f"{100 * difference:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
        return " ".join(part for part in (told, arrow(mine, theirs)) if part)


def _asked(cell: Scored) -> tuple[str, int]:
    return cell.cell.task, cell.cell.seed


def _fits(cell: Scored, wanted: Sequence[tuple[Axis, str]]) -> bool:
    full = cell.cell.entry == FULL.label
    return all(
        name == ANY or (full and axis in ("keep", "host")) or name_of(cell, axis) == name
        for axis, name in wanted
    )

"""Studies: grids that answer one question each, and the tables that show them; plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from foveate.errors import InputError, nearest
from foveate.eval.entry import Entry, Keep
from foveate.eval.grid import Grid
from foveate.eval.tasks import task

__all__ = ["Axis", "Layout", "Printed", "Study", "studies", "study"]

Axis = Literal["entry", "setting", "host", "task", "family", "tokens", "keep"]


@dataclass(frozen=True)
class Layout:
    """One table: which names of the cells run down, and which across.

    Cells that agree in all these names are one cell of the table, their samples taken together. Of
    a task "row-256" the family is "row" and the tokens are "256"; of an entry "a on b" the setting
    is "a" and the host "b". `together` adds columns over all tasks. `over` names entries that get a
    row with the difference to another one, and `ordered` puts the best rows first. `beside` names
    an entry that marks compare with, the study's reference if none; a table that shows "tasks"
    counts in how many of a cell's tasks a row is better and worse than that.
    """

    name: str
    title: str
    rows: tuple[Axis, ...] = ("entry",)
    columns: tuple[Axis, ...] = ("task", "keep")
    shows: str = "score"  # or "tasks", "kept", "bytes", or a measure of fidelity such as "kl"
    keeps: tuple[Keep, ...] = ()  # all if none is named; likewise the next two
    families: tuple[str, ...] = ()
    entries: tuple[str, ...] = ()
    together: bool = False
    ordered: bool = False
    over: Mapping[str, str] = field(default_factory=dict)
    beside: str = ""


@dataclass(frozen=True)
class Printed:
    """What a paper prints for another model and other tasks, beside which ours is put."""

    name: str
    title: str
    source: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Study:
    """Tasks, methods and budgets that answer one question, and how the answer is shown.

    Marks in tables compare with the entry `reference` at the same budget. `picture` names entries
    that are drawn over the budget, their scores or the measure that `draws` names; `across` says
    what budgets are. `curves` names lines of entries over the share of attention that each was
    asked to keep. `fidelity` says that it is measured, too.
    """

    name: str
    answers: str
    tasks: tuple[str, ...]
    entries: tuple[Entry, ...]
    keeps: tuple[Keep, ...]
    layouts: tuple[Layout, ...]
    number: int = 200
    seeds: tuple[int, ...] = (0,)
    reference: str = "snapkv"
    printed: tuple[Printed, ...] = ()
    picture: tuple[str, ...] = ()
    draws: str = "score"
    across: str = ""
    curves: Mapping[str, Mapping[float, str]] = field(default_factory=dict)
    fidelity: bool = False

    def grid(self, number: int | None = None) -> Grid:
        """Return what is to be run, with so many samples of each task; the study's own if None."""
        tasks = tuple(task(name) for name in self.tasks)
        return Grid(tasks, self.entries, self.keeps, self.seeds, number or self.number)


def studies() -> dict[str, Study]:
    """Return every study by its name."""
    from foveate.eval.studies import STUDIES

    return {one.name: one for one in STUDIES}


def study(name: str) -> Study:
    """Return the study of that name; raise `InputError` for an unknown one."""
    known = studies()
    if name not in known:
        raise InputError(f"there is no study {name!r}; {nearest(name, known)}")
    return known[name]

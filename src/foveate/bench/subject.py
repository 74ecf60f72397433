"""What the benchmark's registry holds: subjects, their goals and their charts, as values."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

Result = dict[str, Any]  # what the JSON file holds; tables, goals and charts read it
Cases = dict[str, Any]  # its part "cases", what `measure` returns
Tick = Callable[[str], None]  # hears the name of every finished piece of work
Table = dict[str, Any]  # "columns" and "rows", all text; the first column names the case


@dataclass(frozen=True)
class Goal:
    """A number that should not be above its limit, and what it is."""

    what: str
    value: float
    limit: float

    @property
    def met(self) -> bool:
        """Return whether the number keeps to its limit."""
        return self.value <= self.limit

    def __str__(self) -> str:
        return f"<= {self.limit:g}: {'met' if self.met else 'missed'}"

    def to_dict(self) -> dict[str, Any]:
        """Return the goal as plain values."""
        return {**asdict(self), "met": self.met}


@dataclass(frozen=True)
class Line:
    """One variant in a panel: points, and the range of each where it is known."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    dashed: bool = False
    loose: bool = False  # points alone


@dataclass(frozen=True)
class Panel:
    """One set of axes; `rules` are values of the measured number that lines are drawn at.

    With `names` the panel has one row per name: y counts rows from 0 and x is measured, else y.
    """

    title: str
    across: str
    up: str
    lines: tuple[Line, ...]
    names: tuple[str, ...] = ()
    rules: dict[str, float] = field(default_factory=dict)
    log: str = ""  # "", "x", "y" or "xy"


@dataclass(frozen=True)
class Chart:
    """What one picture shows: panels beside each other."""

    title: str
    panels: tuple[Panel, ...]


def no_goals(result: Result) -> list[Goal]:
    """Return that nothing is asked of these numbers."""
    return []


@dataclass(frozen=True)
class Subject:
    """Something to measure, and how its numbers are shown.

    `setting(device=..., seed=..., clock=..., **options)` returns a value with `to_dict()`, and
    raises `InputError` for what cannot be measured; `heeds` names the further options of the
    command line that it takes. `measure(setting, tick)` returns the cases, and calls `tick` as
    often as `ticks(setting)` says.
    """

    about: str
    setting: Callable[..., Any]
    measure: Callable[[Any, Tick], Cases]
    ticks: Callable[[Any], int]
    table: Callable[[Result], Table]
    chart: Callable[[Result], Chart]
    goals: Callable[[Result], list[Goal]] = no_goals
    heeds: tuple[str, ...] = ("rounds",)

"""The built-in tasks by name, such as `lookup-256`: families of questions in three sizes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from foveate.errors import InputError, nearest
from foveate.eval.generated import Documents
from foveate.eval.task import Metric, Sample, Task

__all__ = ["FAMILIES", "SIZES", "task", "tasks"]

SIZES = {144: (12, 12), 256: (16, 16), 576: (24, 24)}
FAMILIES: Mapping[str, Mapping[str, Any]] = {
    "lookup": {},
    "row": {"skill": "row", "layouts": ("table",)},
    "column": {"layouts": ("columns",)},
    "reverse": {"skill": "reverse"},
    "count": {"skill": "count", "asked": "second"},
    "several": {"asked": "last"},
    "before": {"asked": "before"},
    "pages2": {"pages": 2},
    "pages4": {"pages": 4},
    "second": {"asked": "second"},
}
LONGEST = 8  # tokens of an answer and its end, but for whole rows


def _exact(said: str, sample: Sample) -> float:
    return float(said in sample.answers)


@cache
def tasks() -> tuple[Task, ...]:
    """Return all built-in tasks."""
    return tuple(_task(family, tokens) for family in FAMILIES for tokens in SIZES)


def task(name: str) -> Task:
    """Return the built-in task of that name."""
    known = {task.name: task for task in tasks()}
    if name not in known:
        raise InputError(f"there is no built-in task {name!r}; {nearest(name, known)}")
    return known[name]


def _task(family: str, tokens: int) -> Task:
    options = FAMILIES[family]
    rows, columns = SIZES[tokens]
    source = Documents(grid=(rows // options.get("pages", 1), columns), **options)
    longest = 32 if source.skill == "row" else LONGEST
    return Task(
        f"{family}-{tokens}",
        source,
        Metric("exact", _exact),
        max_new_tokens=longest,
        family=family,
        tokens=tokens,
    )

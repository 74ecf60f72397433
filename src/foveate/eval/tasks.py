"""The built-in tasks by name, such as `lookup-256`: families of questions in three sizes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from foveate.errors import InputError, nearest
from foveate.eval.generated import Documents
from foveate.eval.metrics import metric
from foveate.eval.task import Task
from foveate.tiny.layouts import LAYOUTS

__all__ = ["FAMILIES", "GRIDS", "task", "tasks"]

# Cells of one page by visual tokens in all, for so many pages.
GRIDS: Mapping[int, Mapping[int, tuple[int, int]]] = {
    1: {144: (12, 12), 256: (16, 16), 576: (24, 24)},
    2: {144: (6, 12), 256: (8, 16), 576: (12, 24)},
    4: {144: (6, 6), 256: (8, 8), 576: (12, 12)},
}
FAMILIES: Mapping[str, Mapping[str, Any]] = {
    "lookup": {},
    "long": {"values": (4, 6), "layouts": ("rows", "columns", "receipt")},
    "row": {"skill": "row", "layouts": ("table",)},
    "column": {"layouts": ("columns",)},
    "reverse": {"skill": "reverse"},
    "count": {"skill": "count", "asked": "second"},
    "several": {"asked": "last"},
    "before": {"asked": "around"},
    "pages2": {"pages": 2},
    "pages4": {"pages": 4},
    "second": {"asked": "second"},
}
SIZES = (256, 144, 576)  # the order of lanes
TABLE = 10  # columns of cells that a table needs
LONGEST = 8  # tokens of an answer and its end, but for whole rows


@cache
def tasks() -> tuple[Task, ...]:
    """Return all built-in tasks.

    - lookup: the value of a key, one to six characters, among keys that differ by a letter
    - long: lookup of values with four to six characters, as short ones survive much, those of one
      character all; in no tables, which have no room for them on small pages
    - row: all values of a table's row, the longest answers
    - column: lookup where values stand under their keys
    - reverse: the key of a value
    - count: how many keys begin with a letter, asked second: a single digit asked first would come
      from the full cache, as the first token of every answer does
    - several: lookup behind two others with their right answers, in one prompt
    - before: the question stands in front of the page and again behind it; in front alone, the
      model, which has never seen that, is right in 3 % at 144
    - pages2, pages4: lookup among pages, which have the same visual tokens in all; no tables on
      pages of 6 or 8 columns
    - second: the model answers a lookup, and on the cache that this left one about another part of
      the page, at least half its height away

    With the full cache the model is right in 60 of 60 samples of most of them (seed 0), at 144, 256
    and 576 visual tokens, but for reverse (98, 98, 90 %), count (83, 92, 68 %), pages2 (97 % at
    576) and pages4 (98 % at 256, 93 % at 576).
    """
    return tuple(_task(family, tokens) for family in FAMILIES for tokens in GRIDS[1])


def task(name: str) -> Task:
    """Return the built-in task of that name."""
    known = {task.name: task for task in tasks()}
    if name not in known:
        raise InputError(f"there is no built-in task {name!r}; {nearest(name, known)}")
    return known[name]


def _task(family: str, tokens: int) -> Task:
    options = FAMILIES[family]
    grid = GRIDS[options.get("pages", 1)][tokens]
    fitting = tuple(name for name in LAYOUTS if name != "table" or grid[1] >= TABLE)
    lane = SIZES.index(tokens) * len(FAMILIES) + list(FAMILIES).index(family)
    source = Documents(**{"grid": grid, "layouts": fitting, "lane": lane, **options})
    return Task(
        f"{family}-{tokens}",
        source,
        metric("exact"),
        max_new_tokens=32 if source.skill == "row" else LONGEST,
        family=family,
        tokens=tokens,
    )

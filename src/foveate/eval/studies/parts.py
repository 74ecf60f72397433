"""What several studies share: tasks, the embedded model's tables, entries of one accounting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from foveate import tiny
from foveate.eval.entry import Entry

__all__ = ["FAMILIES", "measured", "tasks", "visual"]

# In place of the papers' four data sets. The first token of an answer comes from the full cache, so
# that answers of a character or two, of which other families have many, survive anything.
FAMILIES = ("long", "row", "column", "second")


def tasks(tokens: int, families: tuple[str, ...] = FAMILIES) -> tuple[str, ...]:
    """Return the tasks with so many visual tokens on a page."""
    return tuple(f"{family}-{tokens}" for family in families)


def visual(preset: str, label: str = "", **options: Any) -> Entry:
    """Return an entry where visual tokens alone are counted and text stays."""
    return Entry(preset, {**options, "scope": "visual"}, label or preset)


def measured(name: str) -> str:
    """Return the file of what was measured of the embedded model: heads, redundancy."""
    return str(Path(tiny.__file__).parent / "tables" / f"{name}.json")

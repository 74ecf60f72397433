"""MileBench's categories, as LOOK-M's tables have them, from logs of `foveate eval`.

`python -m foveate.integrations.milebench LOG...` prints one row for each method and budget.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from rich.table import Table

from foveate.cli import console
from foveate.errors import InputError
from foveate.eval.log import Log, read_log

__all__ = ["CATEGORIES", "Score", "categories", "main"]

CATEGORIES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "T-1": ("ActionLocalization", "ActionPrediction", "ActionSequence"),
        "T-2": ("ObjectExistence", "ObjectInteraction", "MovingAttribute", "ObjectShuffle"),
        "T-3": ("EgocentricNavigation", "MovingDirection"),
        "T-4": ("CounterfactualInference", "StateChange", "CharacterOrder", "SceneTransition"),
        "S-1": ("WebQA", "TQA", "MultiModalQA", "WikiVQA"),
        "S-2": ("SlideVQA", "OCR-VQA", "DocVQA"),
        "S-3": ("Spot-the-Diff", "CLEVR-Change", "IEdit"),
        "S-4": ("MMCoQA", "ALFRED"),
        "S-5": ("nuscenes",),
        "NH": ("TextNeedleInAHaystack", "ImageNeedleInAHaystack"),
        "IR": ("GPR1200",),
    }
)


@dataclass(frozen=True)
class Score:
    """The mean of the data sets of a category that were run, and how much of it there was."""

    mean: float
    sets: int
    failed: int = 0


Row = tuple[str, str]  # method and budget


def categories(log: Log) -> dict[Row, dict[str, Score]]:
    """Return every category's score, each of its data sets counting the same.

    Data sets that are none of MileBench's are categories of their own. Failed samples are left out
    of the means.
    """
    found: dict[Row, dict[str, dict[str, list[float | None]]]] = {}
    for record in log.records:
        row = found.setdefault((record.cell.entry, record.cell.keep), {})
        sets = row.setdefault(_category(record.cell.task), {})
        sets.setdefault(record.cell.task, []).append(record.score)
    return {
        row: {category: _score(list(sets.values())) for category, sets in parts.items()}
        for row, parts in found.items()
    }


def _category(name: str) -> str:
    plain = _plain(name)
    return next((c for c, sets in CATEGORIES.items() if plain in map(_plain, sets)), name)


def _plain(name: str) -> str:
    """Return a name as it is whether written like_this, Like-This or LikeThis."""
    return name.replace("-", "").replace("_", "").lower()


def _score(sets: Sequence[Sequence[float | None]]) -> Score:
    good = [[score for score in scores if score is not None] for scores in sets]
    means = [sum(scores) / len(scores) for scores in good if scores]
    failed = sum(map(len, sets)) - sum(map(len, good))
    return Score(sum(means) / len(means) if means else float("nan"), len(means), failed)


def _told(category: str, score: Score | None) -> str:
    if score is None:
        return ""
    whole = len(CATEGORIES.get(category, (category,)))
    part = "" if score.sets == whole else f" ({score.sets} of {whole})"
    return f"{100 * score.mean:.1f}{part}{f', {score.failed} failed' if score.failed else ''}"


def show(paths: Sequence[str]) -> None:
    """Print a table of the logs at these paths."""
    if not paths:
        raise InputError("no log came; give those that `foveate eval --shape milebench` wrote")
    rows = categories(read_log(*paths))
    there = {category for parts in rows.values() for category in parts}
    names = [*(c for c in CATEGORIES if c in there), *sorted(there - {*CATEGORIES})]
    table = Table("method", "keep", *names)
    for (method, keep), parts in rows.items():
        table.add_row(method, keep, *(_told(name, parts.get(name)) for name in names))
    console.out().print(table)


def main() -> None:
    """Run the command."""
    console.program(show, sys.argv[1:])


if __name__ == "__main__":
    main()

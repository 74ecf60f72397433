"""How sure one is of scores: intervals of a mean, and pairs of cells that answered the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from foveate.eval.entry import FULL
from foveate.eval.judging.results import Scored
from foveate.eval.judging.stats import mcnemar, mean_interval, paired

__all__ = [
    "SEED",
    "arrow",
    "joined",
    "mean",
    "p_value",
    "pairs",
    "percent",
    "percents",
    "reference",
]

CERTAIN = 0.05
WHOLE = "1.0"  # the budget of the full cache's cells
SEED = 0  # of the bootstrap


def reference(name: str, entry: str) -> str:
    """Return what an entry is compared with: "a" means "a on h" for an entry "b on h"."""
    host = entry.partition(" on ")[2]
    return f"{name} on {host}" if host else name


def arrow(mine: Sequence[float], theirs: Sequence[float]) -> str:
    """Return an arrow up or down where one is better, by McNemar's exact test or a bootstrap."""
    return ("↑" if sum(mine) > sum(theirs) else "↓") if p_value(mine, theirs) < CERTAIN else ""


def p_value(mine: Sequence[float], theirs: Sequence[float]) -> float:
    """Return how likely so large a difference is by chance; 1 without pairs."""
    if not mine:
        return 1.0
    if {*mine, *theirs} <= {0.0, 1.0}:
        return mcnemar(mine, theirs)
    return paired(mine, theirs, SEED)[2]


def pairs(
    found: Sequence[Scored], cells: Sequence[Scored], other: Callable[[str], str]
) -> tuple[list[float], list[float]]:
    """Return scores of samples that these cells and those of another entry both answered.

    `other` names that entry, given the cell's own; budget, task and seed are the same. The full
    cache has no budget.
    """
    known = {(c.cell.task, c.cell.entry, c.cell.keep, c.cell.seed): c for c in cells}
    mine: list[float] = []
    theirs: list[float] = []
    for one in found:
        c = one.cell
        name = other(c.entry)
        keep = WHOLE if name == FULL.label else c.keep
        beside = known.get((c.task, name, keep, c.seed))
        if beside is None or beside is one:
            continue
        for a, b in zip(one.scores, beside.scores, strict=True):
            if a is not None and b is not None:
                mine.append(a)
                theirs.append(b)
    return mine, theirs


def joined(cells: Sequence[Scored]) -> list[float | None]:
    """Return the scores of all samples of several cells."""
    return [score for cell in cells for score in cell.scores]


def mean(scores: Sequence[float | None]) -> float:
    """Return the mean of what was answered, 0 if nothing was."""
    told = [score for score in scores if score is not None]
    return sum(told) / len(told) if told else 0.0


def percent(scores: Sequence[float | None]) -> str:
    """Return the mean in percent and half the width of its 95 % interval."""
    middle, low, high = percents(scores)
    return f"{middle:.1f} ±{(high - low) / 2:.1f}"


def percents(scores: Sequence[float | None]) -> tuple[float, float, float]:
    """Return the mean of what was answered and its 95 % interval, in percent."""
    middle, (low, high) = mean_interval([score for score in scores if score is not None])
    return 100 * middle, 100 * low, 100 * high

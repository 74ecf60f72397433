"""What became of every method on every task: plain values with intervals and paired tests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any

from foveate.eval.entry import FULL
from foveate.eval.judging.compared import SEED, joined, reference
from foveate.eval.judging.results import Scored, averaged
from foveate.eval.judging.stats import mcnemar, mean_interval, paired

__all__ = ["Comparison", "Outcome", "outcomes"]


@dataclass(frozen=True)
class Comparison:
    """How much better a method is than `over`, on the `n` samples that both answered.

    `p` is the bootstrap's, `mcnemar` that of McNemar's exact test if all scores are 0 or 1.
    """

    over: str
    n: int
    difference: float
    low: float
    high: float
    p: float
    mcnemar: float | None


@dataclass(frozen=True)
class Outcome:
    """What one method is worth on one task at one budget, all seeds together.

    `score` is the mean over the samples that were answered, None if none was, and so are `kept` and
    `bytes` over the seeds.
    """

    task: str
    entry: str
    keep: str
    n: int
    failed: int
    score: float | None
    low: float | None
    high: float | None
    kept: float | None
    bytes: float | None
    measures: dict[str, float] = field(default_factory=dict)
    comparisons: tuple[Comparison, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the outcome as plain values."""
        return asdict(self)


def outcomes(cells: Sequence[Scored], beside: str) -> list[Outcome]:
    """Return the outcomes in the order of the cells.

    Each is compared with the full cache, and with the entry `beside` at the same budget.
    """
    groups: dict[tuple[str, str, str], list[Scored]] = {}
    for one in cells:
        groups.setdefault((one.cell.task, one.cell.entry, one.cell.keep), []).append(one)
    found = []
    for (task, entry, keep), group in groups.items():
        rivals = [(FULL.label, "1.0"), (reference(beside, entry), keep)]
        compared = (
            _compared(rival, group, groups.get((task, rival, share), []))
            for rival, share in rivals
            if rival != entry and entry != FULL.label
        )
        found.append(_outcome(group, tuple(one for one in compared if one is not None)))
    return found


def _outcome(group: Sequence[Scored], comparisons: tuple[Comparison, ...]) -> Outcome:
    cell, scores = group[0].cell, joined(group)
    told = [score for score in scores if score is not None]
    mean, low, high = None, None, None
    if told:
        mean, (low, high) = mean_interval(told, SEED)
    return Outcome(
        cell.task,
        cell.entry,
        cell.keep,
        n=len(scores),
        failed=len(scores) - len(told),
        score=mean,
        low=low,
        high=high,
        kept=_mean(one.shown("kept") for one in group),
        bytes=_mean(one.shown("bytes") for one in group),
        measures={
            name: averaged(name, (one.measures[name] for one in group if name in one.measures))
            for name in dict.fromkeys(name for one in group for name in one.measures)
        },
        comparisons=comparisons,
    )


def _mean(values: Iterable[float | None]) -> float | None:
    told = [value for value in values if value is not None]
    return fmean(told) if told else None


def _compared(over: str, group: Sequence[Scored], others: Sequence[Scored]) -> Comparison | None:
    """Return the comparison of cells with those of the same seeds, None if no sample is in both."""
    known = {one.cell.seed: one.scores for one in others}
    both = [
        (mine, theirs)
        for one in group
        for mine, theirs in zip(one.scores, known.get(one.cell.seed, one.scores[:0]), strict=False)
        if mine is not None and theirs is not None
    ]
    if not both:
        return None
    mine, theirs = [a for a, _ in both], [b for _, b in both]
    difference, (low, high), p = paired(mine, theirs, SEED)
    exact = mcnemar(mine, theirs) if {*mine, *theirs} <= {0.0, 1.0} else None
    return Comparison(over, len(both), difference, low, high, p, exact)

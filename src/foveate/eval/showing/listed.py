"""All cells of a study as CSV, for whoever makes tables of their own."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from foveate.eval.entry import FULL
from foveate.eval.judging.compared import p_value, pairs, reference
from foveate.eval.judging.results import Scored, scored
from foveate.eval.judging.stats import mean_interval
from foveate.eval.study import Study

__all__ = ["as_csv"]


def as_csv(study: Study, result: Mapping[str, Any]) -> str:
    """Return all cells as CSV: scores with intervals, what is stored, paired differences, measures.

    Differences are to the study's reference (`against`) and to the full cache, with p-values of
    McNemar's exact test, or of a bootstrap where scores are graded.
    """
    cells = scored(result)
    measures = sorted({name for cell in cells for name in cell.measures})
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        [
            *"task entry keep seed n failed score low high against difference p".split(),
            *"kept bytes full_difference full_p".split(),
            *measures,
        ]
    )
    for cell in cells:
        told = [score for score in cell.scores if score is not None]
        numbers = ["", "", ""]
        if told:
            mean, (low, high) = mean_interval(told)
            numbers = [f"{value:.4f}" for value in (mean, low, high)]
        against = reference(study.reference, cell.cell.entry)
        beside = _differs(cell, cells, against)
        counts = (*vars(cell.cell).values(), len(cell.scores), cell.failed)
        writer.writerow(
            [
                *counts,
                *numbers,
                against if any(beside) else "",
                *beside,
                cell.shown("kept"),
                cell.shown("bytes"),
                *_differs(cell, cells, FULL.label),
                *(cell.measures.get(name) for name in measures),
            ]
        )
    return out.getvalue()


def _differs(cell: Scored, cells: Sequence[Scored], against: str) -> list[str]:
    """Return the mean difference to another entry and its p-value, nothing without pairs."""
    mine, theirs = pairs([cell], cells, lambda entry: against)
    if not mine:
        return ["", ""]
    gap = (sum(mine) - sum(theirs)) / len(mine)
    return [f"{gap:.4f}", f"{p_value(mine, theirs):.4g}"]

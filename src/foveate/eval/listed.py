"""All cells of a study as CSV, for whoever makes tables of their own."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from functools import partial
from typing import Any

from foveate.eval.compared import p_value, pairs, reference
from foveate.eval.results import scored
from foveate.eval.stats import mean_interval
from foveate.eval.study import Study

__all__ = ["as_csv"]


def as_csv(study: Study, result: Mapping[str, Any]) -> str:
    """Return all cells as CSV: scores with intervals, the reference beside, what is stored."""
    cells = scored(result)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        "task entry keep seed n failed score low high against difference p kept bytes".split()
    )
    for cell in cells:
        told = [score for score in cell.scores if score is not None]
        numbers = ["", "", ""]
        if told:
            mean, (low, high) = mean_interval(told)
            numbers = [f"{value:.4f}" for value in (mean, low, high)]
        against = reference(study.reference, cell.cell.entry)
        mine, theirs = pairs([cell], cells, partial(reference, study.reference))
        beside = ["", "", ""]
        if mine:
            gap = (sum(mine) - sum(theirs)) / len(mine)
            beside = [against, f"{gap:.4f}", f"{p_value(mine, theirs):.4g}"]
        counts = (*vars(cell.cell).values(), len(cell.scores), cell.failed)
        writer.writerow([*counts, *numbers, *beside, cell.shown("kept"), cell.shown("bytes")])
    return out.getvalue()

"""What is committed of a run: every cell's scores, so that all tables can be computed again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from statistics import fmean, geometric_mean
from typing import Any

from foveate.errors import InputError
from foveate.eval.log import Log
from foveate.eval.record import Cell, Record, Run

__all__ = ["Scored", "averaged", "dumped", "scored", "summary"]

Scores = tuple[float | None, ...]
FAILED = "x"


@dataclass(frozen=True)
class Scored:
    """A cell with the score of every sample, None where it failed, alike ordered in all cells."""

    cell: Cell
    scores: Scores
    kept: float  # share of the visual tokens
    bytes: float  # stored / full cache
    measures: Mapping[str, float] = field(default_factory=dict)

    @property
    def failed(self) -> int:
        """Return how many samples have no answer."""
        return sum(score is None for score in self.scores)

    def shown(self, what: str) -> float | None:
        """Return what is stored ("kept", "bytes"), or the average of a measure, if there is one."""
        if self.failed == len(self.scores):
            return None
        return {**self.measures, "kept": self.kept, "bytes": self.bytes}.get(what)


def summary(study: str, log: Log) -> dict[str, Any]:
    """Return the JSON of a study without its tables: where it comes from, and all cells.

    Of a run that goes on, the samples count that all cells of a task have. Cells are in the order
    in which they were asked for, whoever was first to answer them.
    """
    if not log.runs:
        raise InputError("the log is empty; give one that `foveate eval` wrote")
    last = log.runs[-1]
    methods = {name: told for run in log.runs for name, told in run.methods.items()}
    done = _ordered(_common(log.records), log.runs)
    cells = [_cell(cell, records) for cell, records in done.items()]
    return {
        "study": study,
        "commit": ", ".join(dict.fromkeys(run.commit for run in log.runs)),
        "date": last.date,
        "versions": dict(last.versions),
        "machine": dict(last.machine),
        "model": last.model,
        "revision": last.revision,
        "setting": dict(last.settings),
        "left_out": len(log.records) - sum(map(len, done.values())),
        "tasks": {name: told for run in log.runs for name, told in run.tasks.items()},
        "methods": {
            name: methods[name] for name in dict.fromkeys(map(_method, done)) if name in methods
        },
        "cells": cells,
    }


def _method(cell: Cell) -> str:
    return f"{cell.entry} @ {cell.keep}"


def _ordered(done: Mapping[Cell, list[Record]], runs: Sequence[Run]) -> dict[Cell, list[Record]]:
    """Return cells in the order of their tasks, and then of their methods, in all runs."""
    tasks = [*dict.fromkeys(name for run in runs for name in run.tasks)]
    methods = [*dict.fromkeys(name for run in runs for name in run.methods)]

    def place(cell: Cell) -> tuple[int, int, int]:
        known = (cell.task, tasks), (_method(cell), methods)
        task, method = (names.index(name) if name in names else len(names) for name, names in known)
        return task, cell.seed, method

    return {cell: done[cell] for cell in sorted(done, key=place)}


def _common(records: Iterable[Record]) -> dict[Cell, list[Record]]:
    """Return the records of every cell, of those samples that all cells of a task and seed have."""
    by_cell: dict[Cell, dict[str, Record]] = {}
    for record in records:
        by_cell.setdefault(record.cell, {})[record.sample] = record
    shared: dict[tuple[str, int], set[str]] = {}
    for cell, found in by_cell.items():
        asked = (cell.task, cell.seed)
        shared[asked] = shared.get(asked, {*found}) & {*found}
    return {
        cell: [found[name] for name in sorted(shared[cell.task, cell.seed])]
        for cell, found in by_cell.items()
    }


def _cell(cell: Cell, records: Sequence[Record]) -> dict[str, Any]:
    """Return a cell in few words."""
    answered = [record for record in records if record.score is not None]
    full = sum(record.bytes_full for record in answered)
    stored = sum(record.bytes_stored for record in answered)
    measures = _measures(answered)
    return {
        **vars(cell),
        "n": len(records),
        "failed": len(records) - len(answered),
        "kept": round(fmean(r.kept for r in answered), 5) if answered else 0.0,
        "bytes": round(stored / full, 5) if full else 1.0,
        **({"measures": measures} if measures else {}),
        "scores": _packed([record.score for record in records]),
    }


def averaged(measure: str, values: Iterable[float]) -> float:
    """Return the mean of a measure; of perplexities, which multiply, the geometric one."""
    return geometric_mean(values) if measure.startswith("perplexity") else fmean(values)


def _measures(records: Sequence[Record]) -> dict[str, float]:
    """Return the mean of every measure, without those that are endless, which JSON cannot say."""
    names = sorted({name for record in records for name in record.measures})
    means = {
        name: averaged(name, (r.measures[name] for r in records if name in r.measures))
        for name in names
    }
    return {name: round(mean, 5) for name, mean in means.items() if isfinite(mean)}


def _packed(scores: Sequence[float | None]) -> str | list[float | None]:
    """Return one character a score if all are right or wrong, else numbers."""
    if {*scores} <= {0.0, 1.0, None}:
        return "".join(FAILED if score is None else str(int(score)) for score in scores)
    return [None if score is None else round(score, 4) for score in scores]


def scored(result: Mapping[str, Any]) -> list[Scored]:
    """Return the cells of a study's JSON."""
    return [
        Scored(
            Cell(cell["task"], cell["entry"], cell["keep"], cell["seed"]),
            tuple(_unpacked(cell["scores"])),
            cell["kept"],
            cell["bytes"],
            cell.get("measures", {}),
        )
        for cell in result["cells"]
    ]


def _unpacked(scores: str | list[float | None]) -> Iterable[float | None]:
    if isinstance(scores, str):
        return (None if letter == FAILED else float(letter) for letter in scores)
    return scores


def dumped(result: Mapping[str, Any]) -> str:
    """Return the text of the file: a line for each cell and each row of a table."""
    lines = []
    for name, value in result.items():
        if name == "cells":
            rows = ",\n".join("  " + json.dumps(cell) for cell in value)
            lines.append(f' "cells": [\n{rows}\n ]')
        else:
            lines.append(f" {json.dumps(name)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"

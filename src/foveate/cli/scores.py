"""What a grid has found out, as tables on the screen, or as plain values."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal

from rich.table import Table

from foveate.cli import console
from foveate.eval.entry import FULL
from foveate.eval.grid import Grid
from foveate.eval.judging.outcomes import Outcome, outcomes
from foveate.eval.judging.results import scored, summary
from foveate.eval.log import Log
from foveate.eval.showing.tables import tables, text_of
from foveate.eval.study import Axis, Layout, Study

LEGEND = "Mean score in percent ± half of the 95 % interval."
ARROWS = (
    " ↑ ↓: better or worse than {beside} on the samples that both answered, p < 5 % in McNemar's "
    "exact test, or in a paired bootstrap where scores are graded; no correction for the number of "
    "tests."
)


def told(study: Study, log: Log) -> dict[str, Any]:
    """Return what was found out as plain values."""
    result = summary(study.name, log)
    found = [one.to_dict() for one in outcomes(scored(result), study.reference)]
    left_out = ("study", "cells", "left_out")
    return {name: result[name] for name in result if name not in left_out} | {"outcomes": found}


def show(study: Study, grid: Grid, log: Log) -> None:
    """Print the tables of the study, or one for each family of tasks if it has none."""
    screen = console.out()
    result = summary(study.name, log)
    found = outcomes(scored(result), study.reference)
    for made in sheets(study, grid, result, found):
        screen.print(made["title"], style="bold", soft_wrap=True, markup=False)
        screen.print(_table(*_upright(made["columns"], made["rows"])))
    screen.print(legend(study, found))
    _tell_failed(sum(one.failed for one in found), log)
    commits = dict.fromkeys(run.commit for run in log.runs)
    if len(commits) > 1:
        console.err().print(
            f"note: several versions of the code wrote this log: {', '.join(commits)}",
            soft_wrap=True,
        )


def sheets(
    study: Study, grid: Grid, result: Mapping[str, Any], found: list[Outcome]
) -> Iterator[dict[str, Any]]:
    """Yield the tables of the study, or one for each family of tasks if it has none."""
    for one in [study] if study.layouts else _by_family(study, grid):
        cells = [cell for cell in result["cells"] if cell["task"] in one.tasks]
        yield from tables(one, {**result, "cells": cells}).values()
    yield from _measured(found)


def legend(study: Study, found: list[Outcome]) -> str:
    """Return what marks and numbers in the tables mean."""
    compared = any(one.over != FULL.label for each in found for one in each.comparisons)
    return LEGEND + (ARROWS.format(beside=study.reference) if compared else "")


def has_score(log: Log) -> bool:
    """Return whether any sample was answered and judged."""
    return any(one.score is not None for one in log.records)


def tell_more(log: Log, grid: Grid, shown: Log) -> None:
    """Print how many answers of the grid's cells are in the log, and not among those shown."""
    cells = set(grid.cells())
    more = sum(one.cell in cells for one in log.records) - len(shown.records)
    if more:
        console.err().print(
            f"note: {grid.number} samples of each task and seed were asked for, and the log has "
            f"{more} answers to others, which are not shown; a larger --number shows them",
            soft_wrap=True,
        )


def _tell_failed(failed: int, log: Log) -> None:
    """Print how many samples failed, and what the first of them died of."""
    errors = (one.error for one in log.records if one.error)
    if failed:
        why = next(errors, "").strip().splitlines()[-1:]
        console.out().print(
            f"Failed: {failed}, without a score; the log has the tracebacks, and --retry-failed "
            f"does these samples again. The first: {''.join(why)}",
            markup=False,
        )


def _by_family(study: Study, grid: Grid) -> Iterator[Study]:
    """Yield the part of the study that each family of tasks is, with a table of scores.

    All of it comes last, with a table of bytes.
    """
    families: dict[str, list[str]] = {}
    for task in grid.tasks:
        families.setdefault(task.family or task.name, []).append(task.name)
    columns: tuple[Axis, ...] = ("keep",) if len(grid.rows()) > 1 else ("task",)
    for family, names in families.items():
        title = names[0] if len(names) == 1 else family
        rows: tuple[Axis, ...] = ("entry",) if len(names) == 1 else ("task", "entry")
        layout = Layout("scores", title, rows=rows, columns=columns)
        yield replace(study, tasks=tuple(names), layouts=(layout,))
    if len(grid.rows()) > 1:
        stored = Layout("stored", "Bytes stored / full cache", columns=columns, shows="bytes")
        yield replace(study, layouts=(stored,))


def _upright(columns: list[str], rows: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    """Return a table, on its side if it would be wider than long, as screens are narrow."""
    if len(columns) <= max(len(rows) + 1, 9):
        return columns, rows
    columns, *rows = map(list, zip(columns, *rows, strict=True))
    return columns, rows


def _table(columns: list[str], rows: list[list[str]]) -> Table:
    """Return a table whose numbers stand at the right."""
    table = Table()
    words = {"measure", "method", "task", "setting", "window", "layers", "visual tokens"}
    for heading in columns:
        side: Literal["left", "right"] = "left" if heading in words else "right"
        table.add_column(heading, justify=side, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _measured(found: list[Outcome]) -> Iterator[dict[str, Any]]:
    """Yield a table of the measures of fidelity for each task."""
    for task in dict.fromkeys(one.task for one in found if one.measures):
        told = {(one.entry, one.keep): one.measures for one in found if one.task == task}
        names = list(dict.fromkeys(name for measures in told.values() for name in measures))
        measured = [place for place, measures in told.items() if measures]
        keeps = list(dict.fromkeys(keep for _, keep in measured))
        rows = []
        for name in names:
            for entry in dict.fromkeys(entry for entry, _ in measured):
                values = [told.get((entry, keep), {}).get(name) for keep in keeps]
                rows.append([name.replace("_", " "), entry, *map(_number, values)])
        yield {
            "title": f"{task}: how closely the full cache is followed",
            "columns": ["measure", "method", *(text_of("keep", keep) for keep in keeps)],
            "rows": rows,
        }


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"

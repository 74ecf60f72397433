"""What a grid has found out, as files: tables in Markdown, all cells as CSV, curves as SVG."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from foveate.cli.scores import legend, sheets
from foveate.cli.tables import check_folder, unwritable
from foveate.errors import InputError, MissingExtra
from foveate.eval.grid import Grid
from foveate.eval.judging.outcomes import outcomes
from foveate.eval.judging.results import dumped, scored, summary
from foveate.eval.log import Log
from foveate.eval.showing.listed import as_csv
from foveate.eval.showing.markdown import as_markdown
from foveate.eval.showing.tables import tables
from foveate.eval.study import Layout, Study

KINDS = (".md", ".csv", ".svg")


def check(files: Sequence[Path], study: Study) -> None:
    """Raise `InputError` before the work begins for files in which nothing could be saved."""
    for file in files:
        kind = file.suffix.lower()
        if kind not in KINDS:
            raise InputError(
                f"--save {file}: tables are saved as .md or .csv, curves as .svg; give a file that "
                "ends so"
            )
        if kind == ".svg":
            _check_curves(file, study)
    check_folder(*files)


def _check_curves(file: Path, study: Study) -> None:
    if not study.curves and {type(keep) for keep in study.keeps} not in ({float}, {int}):
        told = ",".join(map(str, study.keeps))
        raise InputError(
            f"--save {file}: curves are drawn over budgets of one kind, shares such as 0.5,0.1 or "
            f"tokens such as 128,64, and --keep is {told}; save tables, as .md or .csv"
        )
    if find_spec("matplotlib") is None:
        raise MissingExtra(
            f"--save {file}: curves are drawn with matplotlib, which is not installed; "
            "`pip install 'foveate[charts]'` brings it"
        )


def save(files: Sequence[Path], study: Study, grid: Grid, log: Log) -> None:
    """Write every file in the form that its ending says."""
    result = summary(study.name, log)
    for file in files:
        try:
            if file.suffix.lower() == ".svg":
                _draw(file, study, result)
            elif file.suffix.lower() == ".csv":
                file.write_text(as_csv(study, result), encoding="utf-8")
            else:
                file.write_text(_markdown(study, grid, result), encoding="utf-8")
        except OSError as error:
            raise unwritable(file, error.strerror or error) from error


def _draw(file: Path, study: Study, result: Mapping[str, Any]) -> None:
    from foveate.bench.chart import draw, fingerprint
    from foveate.eval.showing.pictures import curves

    draw(curves(study, scored(result)), file, fingerprint(dumped(result)))


def _markdown(study: Study, grid: Grid, result: Mapping[str, Any]) -> str:
    found = outcomes(scored(result), study.reference)
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    origin = (
        f"{result['model']} ({result['revision']}) in {result['setting']['dtype']}, measured on "
        f"{result['date']} at commit {result['commit']}; {versions}."
    )
    made = [*_beside_each_other(study, result), *sheets(study, grid, result, found)]
    return as_markdown(made, f"{legend(study, found)}\n\n{origin}")


def _beside_each_other(study: Study, result: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield all tasks in one table, as papers have them, where the study has no tables itself."""
    if not study.layouts and len(study.tasks) > 1:
        wide = Layout("wide", "All tasks", columns=("task", "keep"), together=True)
        yield from tables(replace(study, layouts=(wide,)), result).values()

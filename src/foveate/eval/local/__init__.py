"""Tasks from files on this machine: JSON, JSON lines, Parquet, or a folder with one of those."""

from __future__ import annotations

from pathlib import Path

from foveate.errors import InputError
from foveate.eval.local import milebench, rows, shapes
from foveate.eval.local.shapes import Shape
from foveate.eval.local.source import Columns, Local
from foveate.eval.metrics import metric as find_metric
from foveate.eval.task import Metric, Task

__all__ = ["local_task"]


def local_task(
    path: str | Path,
    *,
    shape: str | None = None,
    metric: str | None = None,
    prompt: str | None = None,
    name: str | None = None,
    max_new_tokens: int | None = None,
) -> Task:
    """Return the task of a table's rows.

    A shape knows columns, prompt, metric and length of a benchmark, as `shapes` has them; what is
    given beside it goes before. Without one, images, question and answers are looked for under
    their usual names, and answers must be said exactly. Images may be paths, beside the table or in
    its folder `images`. Places in a question (`<image>`, `<ImageHere>`, `{image#1}`) take the
    images in turn; those that have no place come first.
    """
    form = shapes.PLAIN if shape is None else shapes.shape(shape)
    judge = None if metric is None else find_metric(metric)
    if max_new_tokens is not None and max_new_tokens < 1:
        raise InputError(f"max_new_tokens={max_new_tokens}; give at least 1")
    given = Path(path).expanduser()
    files = rows.find(given)
    title = given.stem if given.is_file() else given.resolve().name
    table = rows.read(files, form.name == "milebench")
    judge = judge or _metric(form, table, files[0].stem)
    wording = _wording(form, prompt)
    source = Local(
        files=files,
        name=files[0].name if len(files) == 1 else title,
        digest=rows.digest(files),
        columns=_columns(form, judge, rows.columns(table), str(path)),
        prompt=wording,
        metric=judge,
        is_milebench=form.name == "milebench",
        is_capitalised=form.is_capitalised,
    )
    return Task(
        name=name or title,
        source=source,
        metric=judge,
        prompt=wording,
        max_new_tokens=max_new_tokens or form.max_new_tokens,
        family="local" if shape is None else shape,
    )


def _metric(form: Shape, table: rows.Rows, stem: str) -> Metric:
    name = form.metric or milebench.metric_name(stem, table[0].get("question_type"))
    return find_metric(name)


def _wording(form: Shape, prompt: str | None) -> str:
    wording = form.prompt if prompt is None else prompt
    if form.question and "{question}" not in wording:
        raise InputError(f"prompt {wording!r} has no place for the question; write {{question}}")
    return wording


def _columns(form: Shape, metric: Metric, there: list[str], path: str) -> Columns:
    """Return the columns that are read, or say all that are missing."""
    wanted = {"image": form.images, "question": form.question, "answer": form.answers}
    if metric.name.startswith("box_hit"):
        wanted |= {"answer": (), "box": ("bbox",)}
    if metric.name == "milebench_options":
        wanted |= {"options": ("options", "choices")}
    found = {what: _first(names, there) for what, names in wanted.items()}
    missing = [
        f"{what} ({' or '.join(names)})"
        for what, names in wanted.items()
        if names and found[what] is None
    ]
    if missing:
        what = "a table of no known shape" if form is shapes.PLAIN else f"shape {form.name}"
        raise InputError(
            f"{path} has the columns {', '.join(there)}; {what} with metric {metric.name} needs "
            f"{', '.join(missing)}: rename columns, or give another shape or metric"
        )
    return Columns(**found)


def _first(names: tuple[str, ...], there: list[str]) -> str | None:
    return next((name for name in names if name in there), None)

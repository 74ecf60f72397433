"""`foveate eval`: what answers are worth under compressed caches; a run that can be stopped."""

import datetime
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from foveate.cli import console, grids
from foveate.cli.ask import Attention, Device, Dtype, Json, Model, Quantized, Storage

RUNS = Path("runs") / "eval"
NUMBER = 300

Tasks = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="TASK...",
        help="Names of tasks, or list, which shows all there is.",
        show_default=False,
    ),
]
StudyName = Annotated[
    str | None, typer.Option("--study", help="Tasks, methods and budgets of a study.")
]
Methods = Annotated[
    str | None,
    typer.Option(
        "--methods", help=f"Names from `foveate methods`; {grids.METHODS} if none is given."
    ),
]
Entries = Annotated[
    list[str] | None,
    typer.Option(
        "--entry",
        metavar="METHOD(NAME=VALUE)",
        help="A method with options, yours as module:function; may be repeated.",
    ),
]
Options = Annotated[
    list[str] | None,
    typer.Option(
        "--option", metavar="NAME=VALUE", help="An option of all --methods; may be repeated."
    ),
]
Keep = Annotated[
    str | None,
    typer.Option("--keep", help=f"Shares or tokens that are kept; {grids.KEEPS} if not given."),
]
Number = Annotated[
    int | None,
    typer.Option(
        "--number", min=1, help=f"Samples of each task and seed; {NUMBER}, or all of --data."
    ),
]
Seeds = Annotated[str | None, typer.Option("--seeds", help="Seeds of tasks: 1,2")]
Data = Annotated[
    list[str] | None,
    typer.Option(
        "--data",
        metavar="[SHAPE=]PATH",
        help="A task of yours: a JSON, JSONL or Parquet file, or its folder; may be repeated.",
    ),
]
Shape = Annotated[
    str | None, typer.Option("--shape", help="What --data is like: docvqa, chartqa ...")
]
MetricName = Annotated[str | None, typer.Option("--metric", help="How --data is judged.")]
Prompt = Annotated[
    str | None, typer.Option("--prompt", help="How --data is asked, with {question} in it.")
]
NewTokens = Annotated[
    int | None, typer.Option("--max-new-tokens", min=1, help="Longest answer to --data.")
]
Workers = Annotated[
    int, typer.Option("--workers", min=1, help="Processes, each with a model of its own.")
]
Batch = Annotated[int, typer.Option("--batch", min=1, help="Samples that are asked at once.")]
Fidelity = Annotated[
    bool, typer.Option("--fidelity", help="Also measure how closely the full cache is followed.")
]
Out = Annotated[
    Path | None,
    typer.Option("--out", help="The log; one that was begun goes on. In runs/eval if not given."),
]
Save = Annotated[
    list[Path] | None,
    typer.Option(
        "--save",
        metavar="FILE",
        help="Also write tables (.md), all cells (.csv) or curves (.svg); may be repeated.",
    ),
]
Retry = Annotated[
    bool, typer.Option("--retry-failed", help="Do samples again that failed in this log.")
]


@console.reported
def command(
    names: Tasks = None,
    study: StudyName = None,
    methods: Methods = None,
    entry: Entries = None,
    option: Options = None,
    keep: Keep = None,
    number: Number = None,
    seeds: Seeds = None,
    data: Data = None,
    shape: Shape = None,
    metric: MetricName = None,
    prompt: Prompt = None,
    max_new_tokens: NewTokens = None,
    model: Model = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    attn: Attention = None,
    storage: Storage = "dense",
    quantized: Quantized = None,
    workers: Workers = 1,
    batch: Batch = 16,
    fidelity: Fidelity = False,
    out: Out = None,
    retry_failed: Retry = False,
    save: Save = None,
    json: Json = False,
) -> None:
    """Score methods and budgets on tasks, beside the full cache; writes a log, prints tables."""
    if names == ["list"]:
        _list()
        return
    from foveate.cli import models, saved, scores
    from foveate.errors import InputError
    from foveate.eval.grid import Setting, run
    from foveate.eval.running import ranks
    from foveate.eval.running.origin import check_asked

    if retry_failed and out is None and study is None:
        raise InputError("--retry-failed goes on with a log; give it with --out")
    own = {"shape": shape, "metric": metric, "prompt": prompt, "max_new_tokens": max_new_tokens}
    chosen: dict[str, Any] = {
        "TASK": names,
        "--methods": methods,
        "--entry": entry,
        "--option": option,
    }
    chosen |= {"--keep": keep, "--data": data} | {grids.word(name): own[name] for name in own}
    if study is None:
        tasks = grids.tasks(names, data or [], own, number)
        asked, grid = grids.asked(tasks, grids.entries(methods, entry, option), keep)
    else:
        asked, grid = grids.of_study(study, chosen)
    saved.check(save or [], asked)
    grid = grids.sized(grid, number, seeds, everything=bool(data))
    with ranks.team() as team:
        path = team.same(lambda: out or RUNS / f"{study or _now()}.jsonl")
        with console.only_stderr(), _stoppable(path), console.meter(team.rank == 0) as meter:
            log = run(
                grid,
                partial(models.load, model, dtype, device, attn),
                path,
                setting=Setting(batch, storage, quantized, fidelity or asked.fidelity),
                workers=workers,
                team=team,
                retry_failed=retry_failed,
                on_progress=lambda now: meter(now.done, now.total, _doing(now)),
                check=lambda before: check_asked(before, path, model, dtype, attn),
            )
    if team.rank > 0:  # the first one tells
        return
    found = grid.part_of(log)
    scores.tell_more(log, grid, found)
    if json:
        console.print_json({"log": str(path), **scores.told(asked, found)})
    else:
        scores.show(asked, grid, found)
        console.out().print(f"log: {path}", soft_wrap=True)
    saved.save(save or [], asked, grid, found)
    if not scores.has_score(found):
        raise typer.Exit(console.FAILED)


def _now() -> str:
    return f"{datetime.datetime.now():%Y%m%d-%H%M%S-%f}"


def _doing(now: Any) -> str:
    """Return what is being worked on, in few words."""
    cell = now.cell and f"{now.cell.task} {now.cell.entry} {now.cell.keep}"
    failed = f"{now.failed} failed" if now.failed else ""
    return ", ".join(part for part in (cell or "loading the model", failed) if part)


@contextmanager
def _stoppable(path: Path) -> Iterator[None]:
    """Say how to go on if the run is stopped."""
    try:
        yield
    except KeyboardInterrupt:
        if not path.exists():
            raise
        told = f"stopped; all answers so far are in {path}: give the same command with --out {path}"
        console.err().print(told, soft_wrap=True, markup=False)
        raise typer.Exit(130) from None


def _list() -> None:
    """Print all names that the command knows."""
    from foveate.eval.local.shapes import SHAPES
    from foveate.eval.metrics import METRICS
    from foveate.eval.study import studies
    from foveate.eval.tasks import tasks

    known = {
        "tasks": [(task.name, task.metric.name) for task in tasks()],
        "studies (--study)": [(name, one.answers) for name, one in studies().items()],
        "shapes of files (--shape)": [(name, one.metric) for name, one in SHAPES.items()],
        "metrics (--metric)": [(name, "") for name in METRICS],
    }
    screen = console.out()
    for title, rows in known.items():
        screen.print(title, style="bold")
        for name, about in rows:
            screen.print(f"  {name:15s} {about}".rstrip(), soft_wrap=True, markup=False)

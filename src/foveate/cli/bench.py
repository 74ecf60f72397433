"""`foveate bench`: tests first, then numbers beside what one has without Foveate, as ratios."""

import contextlib
import json as json_text
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from foveate.cli import console

T = TypeVar("T")
WHAT = ("decode", "prefill")


@console.reported
def command(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            help="decode, prefill, peak, sums, rows ..., or all; decode and prefill if not given. "
            "`foveate bench list` says what each one is."
        ),
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option("--keep", help="Share of tokens kept; decode takes several: 0.5,0.1"),
    ] = None,
    presets: Annotated[
        str | None, typer.Option("--presets", help="Which methods, for prefill: snapkv,h2o")
    ] = None,
    tokens: Annotated[
        str | None, typer.Option("--tokens", help="Lengths of prompts, for prefill: 2048,8192")
    ] = None,
    kv_heads: Annotated[int | None, typer.Option("--kv-heads", help="Key-value heads.")] = None,
    rounds: Annotated[int | None, typer.Option("--rounds", min=1, help="Rounds per case.")] = None,
    device: Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1 ...")] = "cpu",
    dtype: Annotated[
        str | None, typer.Option("--dtype", help="float32, bfloat16, float16; by device.")
    ] = None,
    clock: Annotated[
        str, typer.Option("--clock", help="wall, or cpu: CPU time, for machines with other work.")
    ] = "wall",
    seed: Annotated[int, typer.Option("--seed", help="Seed of weights and prompt.")] = 20260,
    grids: Annotated[
        str | None, typer.Option("--grids", help="Grids of the papers: aircache-qwen2-vl,lookm")
    ] = None,
    peer_python: Annotated[
        str | None, typer.Option("--peer-python", help="Python of an environment with kvpress.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder; benchmarks/results and docs/charts if not given."),
    ] = None,
    chart: Annotated[
        Path | None, typer.Option("--chart", help="Measure nothing, draw the chart of this JSON.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure what compression costs and saves; writes a JSON file and a chart per subject."""
    from foveate import bench
    from foveate.cli.models import find_device

    if chart is not None:
        console.out().print(f"drawn: {_redrawn(chart, out)}", soft_wrap=True)
        return
    names = _names(what or list(WHAT))
    if names == ["list"]:
        _list()
        return
    given = {
        "keep": _several("--keep", keep, float),
        "presets": _several("--presets", presets, str),
        "tokens": _several("--tokens", tokens, int),
        "kv_heads": kv_heads,
        "rounds": rounds,
        "dtype": dtype,
        "grids": _several("--grids", grids, str),
        "peer_python": peer_python,
    }
    where = str(find_device(device))
    common = {"device": where, "seed": seed, "clock": clock}
    settings = _settings(names, common, {k: v for k, v in given.items() if v is not None})
    folder = bench.root()
    end = where.split(":")[0] + ("-time" if clock == "cpu" else "")
    paths = {name: _writable(_place(folder, out, f"{name}-{end}.json")) for name in names}
    with console.only_stderr():
        with console.err().status("running the tests of what is measured"):
            bench.verify(folder, names)
        results = {name: _recorded(name, settings[name], folder, paths[name]) for name in names}
    if json:
        console.print_json(results)
    else:
        for name, result in results.items():
            _show(result, paths[name])


def _names(what: list[str]) -> list[str]:
    """Return the subjects that the words name."""
    from foveate.bench import SUBJECTS
    from foveate.errors import InputError

    if what == ["list"]:
        return what
    names = [*SUBJECTS] if what == ["all"] else list(dict.fromkeys(what))
    for name in names:
        if name not in SUBJECTS:
            allowed = ", ".join([*SUBJECTS, "all"])
            raise InputError(f"{name!r} is nothing to measure; choose one of {allowed}")
    return names


def _several(option: str, text: str | None, kind: Callable[[str], T]) -> tuple[T, ...] | None:
    """Return the values of an option that takes several, or None if it was not given."""
    from foveate.cli.options import several

    if text is None:
        return None
    return several(option, text, kind, "2048,8192" if kind is int else "0.5,0.1")


def _settings(names: list[str], common: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Return the setting of every subject, or raise for an option that none of them takes."""
    from foveate.bench import SUBJECTS
    from foveate.errors import InputError

    for option in given:
        if not any(option in SUBJECTS[name].heeds for name in names):
            takers = ", ".join(n for n, subject in SUBJECTS.items() if option in subject.heeds)
            word = "--" + option.replace("_", "-")
            raise InputError(f"{', '.join(names)}: no use for {word}, which is for {takers}")
    settings = {}
    for name in names:
        options = {k: v for k, v in given.items() if k in SUBJECTS[name].heeds}
        if "keep" in options and name != "decode":
            options["keep"] = _one(name, options["keep"])
        settings[name] = SUBJECTS[name].setting(**common, **options)
    return settings


def _one(name: str, values: tuple[float, ...]) -> float:
    from foveate.errors import InputError

    if len(values) > 1:
        came = ", ".join(f"{value:g}" for value in values)
        raise InputError(f"{name} takes one --keep, and {came} came; give several to decode alone")
    return values[0]


def _recorded(name: str, setting: Any, folder: Path, path: Path) -> dict[str, Any]:
    """Return what was measured, which is in a file then, with its chart."""
    from foveate import bench

    subject = bench.SUBJECTS[name]
    with console.progress() as bar:
        task = bar.add_task(f"{name}: preparing", total=subject.ticks(setting))

        def tick(case: str) -> None:
            bar.update(task, description=f"{name}: {case}", advance=1)

        cases = subject.measure(setting, tick)
    result = bench.completed(bench.record(name, setting.to_dict(), cases, folder))
    path.write_text(json_text.dumps(result, indent=1) + "\n")
    try:
        _redrawn(path, None)
    except ImportError as error:
        console.err().print(f"no chart is drawn: {error}", markup=False, soft_wrap=True)
    return result


def _redrawn(path: Path, out: Path | None) -> Path:
    """Return where the chart of a JSON file is, newly drawn."""
    from foveate.bench.chart import draw_file

    results = path.resolve().parent
    beside = results.parent.parent / "docs" / "charts"
    usual = results.parts[-2:] == ("benchmarks", "results")
    target = _writable((out or (beside if usual else results)) / f"{path.stem}.svg")
    draw_file(path, target)
    return target


def _place(folder: Path, out: Path | None, name: str) -> Path:
    return (out or folder / "benchmarks" / "results") / name


def _writable(path: Path) -> Path:
    from foveate.errors import InputError

    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise InputError(f"--out {path.parent} cannot be written to; give a folder of yours")
    return path


def _list() -> None:
    from foveate.bench import SUBJECTS

    for name, subject in SUBJECTS.items():
        console.out().print(f"{name:8s} {subject.about}", soft_wrap=True)


def _show(result: dict[str, Any], path: Path) -> None:
    from rich.table import Table

    screen = console.out()
    table = Table(*result["table"]["columns"])
    for row in result["table"]["rows"]:
        table.add_row(*row)
    screen.print(table)
    if result["goals"]:
        met = sum(goal["met"] for goal in result["goals"])
        screen.print(f"{met} of {len(result['goals'])} goals met")
    screen.print(f"written: {path}", soft_wrap=True)

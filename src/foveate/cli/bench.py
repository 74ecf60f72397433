"""`foveate bench`: tests first, then times beside what one has without Foveate, as ratios."""

import contextlib
import json as json_text
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from foveate.cli import console


@console.reported
def command(
    what: Annotated[
        str,
        typer.Argument(
            help="cache: prefill and decode. sums: attention's column sums, one layer. "
            "rows: prefill with scores over all rows, 8,192 tokens."
        ),
    ] = "cache",
    keep: Annotated[float, typer.Option("--keep", help="Share of visual tokens kept.")] = 0.1,
    kv_heads: Annotated[int, typer.Option("--kv-heads", help="Key-value heads, of 8.")] = 8,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Rounds per case.")] = 7,
    device: Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1 ...")] = "cpu",
    dtype: Annotated[str, typer.Option("--dtype", help="float32, bfloat16, float16.")] = "float32",
    clock: Annotated[
        str, typer.Option("--clock", help="wall, or cpu: CPU time, for machines with other work.")
    ] = "wall",
    seed: Annotated[int, typer.Option("--seed", help="Seed of weights and prompt.")] = 20260,
    out: Annotated[
        Path | None, typer.Option("--out", help="JSON file; in benchmarks/results if not given.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure prefill and decode, or scores over all rows; writes a JSON file."""
    from foveate import aircache, bench
    from foveate.bench.subject import Size
    from foveate.cli.models import find_device

    device = str(find_device(device))
    _check(what, kv_heads, dtype, device, clock)
    aircache(keep=keep)  # raises before the tests are run for nothing
    setting: Any = bench.Setting(
        Size(kv_heads=kv_heads), keep, seed, device, dtype, rounds, clock=clock
    )
    if what == "sums":
        setting = bench.SumsSetting(seed=seed, dtype=dtype, rounds=rounds, clock=clock)
    elif what == "rows":
        setting = bench.RowsSetting(keep=keep, seed=seed, rounds=rounds, clock=clock)
    folder = bench.root()
    name = f"{what}-" + device.split(":")[0] + ("-time" if clock == "cpu" else "")
    path = _writable(out or folder / "benchmarks" / "results" / f"{name}.json")
    with console.only_stderr():
        result = _recorded(what, setting, folder)
    path.write_text(json_text.dumps(result, indent=1) + "\n")
    if json:
        console.print_json(result)
    else:
        _show(result, path)


def _recorded(what: str, setting: Any, folder: Path) -> dict[str, Any]:
    """Return what was measured and where, once the tests have passed."""
    from foveate import bench

    subject = bench.SUBJECTS[what]
    with console.err().status("running the tests of what is measured"):
        bench.verify(folder, what)
    with console.progress() as bar:
        task = bar.add_task("preparing", total=subject.ticks(setting))
        cases = subject.measure(setting, lambda case: bar.update(task, description=case, advance=1))
    result = bench.record(setting.to_dict(), cases, folder)
    return {**result, "table": subject.table(cases, setting.clock)}


def _writable(path: Path) -> Path:
    from foveate.errors import InputError

    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise InputError(f"--out {path} cannot be written; give a file in a folder of yours")
    return path


def _check(what: str, kv_heads: int, dtype: str, device: str, clock: str) -> None:
    from foveate.bench import CLOCKS, SUBJECTS
    from foveate.errors import InputError

    if what not in SUBJECTS:
        raise InputError(f"{what!r} is nothing to measure; choose one of {', '.join(SUBJECTS)}")
    if what != "cache" and device != "cpu":
        raise InputError(f"{what} are measured on cpu only, not on {device}; leave --device out")
    if what == "rows" and dtype != "float32":
        raise InputError(f"rows are measured in float32, not {dtype}; leave --dtype out")
    if kv_heads not in (1, 2, 4, 8):
        raise InputError(f"--kv-heads {kv_heads} does not divide 8 heads; choose 1, 2, 4 or 8")
    if dtype not in ("float32", "bfloat16", "float16"):
        raise InputError(f"--dtype {dtype!r} is not known; choose float32, bfloat16 or float16")
    if clock not in CLOCKS:
        raise InputError(f"--clock {clock!r} is not known; choose wall or cpu")
    if clock == "cpu" and device != "cpu":
        raise InputError(f"--clock cpu cannot time work on {device}; leave it out")


def _show(result: dict[str, Any], path: Path) -> None:
    from rich.table import Table

    screen = console.out()
    for case, numbers in result["cases"].items():
        for name, spread in numbers["milliseconds"].items():
            screen.print(f"{case}: {name}: {spread['median']:.1f} ms")
    table = Table(*result["table"]["columns"])
    for row in result["table"]["rows"]:
        table.add_row(*row)
    screen.print(table)
    screen.print(f"written: {path}", soft_wrap=True)

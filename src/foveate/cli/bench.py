"""`foveate bench`: tests first, then prefill and decode beside native caches, as ratios."""

import json as json_text
from pathlib import Path
from typing import Annotated, Any

import typer

from foveate.cli import console


@console.reported
def command(
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
    """Measure prefill and decode with 4,096 visual tokens; writes a JSON file."""
    from foveate import aircache, bench
    from foveate.bench.subject import Size
    from foveate.cli.models import find_device

    device = str(find_device(device))
    _check(kv_heads, dtype, device, clock)
    aircache(keep=keep)  # raises before the tests are run for nothing
    setting = bench.Setting(Size(kv_heads=kv_heads), keep, seed, device, dtype, rounds, clock=clock)
    folder = bench.root()
    with console.only_stderr():
        with console.err().status("running the tests of what is measured"):
            bench.verify(folder)
        with console.progress() as bar:
            task = bar.add_task("building the model", total=len(bench.CASES) * (rounds + 1))
            cases = bench.measure(
                setting, lambda name: bar.update(task, description=name, advance=1)
            )
    result = bench.record(setting.to_dict(), cases, folder)
    path = out or folder / "benchmarks" / "results" / f"cache-{device.split(':')[0]}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json_text.dumps(result, indent=1) + "\n")
    if json:
        console.print_json(result)
    else:
        _show(result, path)


def _check(kv_heads: int, dtype: str, device: str, clock: str) -> None:
    from foveate.bench import CLOCKS
    from foveate.errors import InputError

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

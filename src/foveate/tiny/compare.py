"""Every preset on the embedded model, side by side: `python -m foveate.tiny.compare --help`.

Each sample is written as soon as its batch is done; a run that was cut off goes on where it was.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import foveate
from foveate.cli.options import build_method
from foveate.tiny import load
from foveate.tiny.evaluate import BATCH, FIRST_SEED, Case, examples, origin, say
from foveate.tiny.layouts import LAYOUTS

KEEPS = (0.5, 0.2, 0.1, 0.05, 0.01)
VALUES = (4, 6)  # the first token comes from the full cache, so short values survive anything
SKIPPED = ("full", "mixkv")  # the row above all others; and below, with its hosts
HOSTS = ("snapkv", "pyramidkv", "adakv", "sparsemm")


@dataclass(frozen=True)
class Entry:
    """One row of the table: a preset, with options as `name=value`, and what is said of them."""

    preset: str
    options: tuple[str, ...] = ()
    note: str = ""

    def __str__(self) -> str:
        return f"{self.preset} {self.note}".strip()

    def method(self, keep: float) -> foveate.Method:
        """The method at this share of the visual tokens."""
        options = (*self.options, "scope=visual")
        return build_method(self.preset, str(keep), options)


def entries(heads: Path | None) -> list[Entry]:
    """Every preset with its defaults, MixKV on its hosts, and the variants worth a row."""
    rows = [Entry(info.name) for info in foveate.methods() if info.name not in SKIPPED]
    rows += [Entry(f"mixkv+{host}") for host in HOSTS]
    if heads is not None:  # with the total of all others: by itself it loses what heads cannot take
        same = "redistribute=true"
        rows.append(Entry("sparsemm", (f"table={heads}", same), "(head table)"))
        rows.append(Entry("mixkv+sparsemm", (f"host_table={heads}", same), "(head table)"))
    literal = ("window_of=any", "pool_over=sequence")
    rows.append(Entry("snapkv", literal, "(literal window and pooling)"))
    return [*rows, Entry("lookm", ("merge=none",), "(no merging)")]


def answers(model: Any, processor: Any, method: Any, number: int) -> list[list[Any]]:
    """Seed, question, right answer and what was said, for `number` questions over all layouts."""
    told: list[list[Any]] = []
    for i, layout in enumerate(LAYOUTS):
        count = number // len(LAYOUTS) + (i < number % len(LAYOUTS))
        asked = list(examples(Case("lookup", layout, (16, 16), values=VALUES), count, 1))
        for start in range(0, count, BATCH):
            some = asked[start : start + BATCH]
            with torch.no_grad(), foveate.compress(model, method):
                said = say(model, processor, some)
            told += [[s, q.text, q.answer, a] for (s, _, q), a in zip(some, said, strict=True)]
    return told


def exact(samples: Sequence[Sequence[Any]]) -> float:
    """Exact match."""
    return sum(right == said for _, _, right, said in samples) / len(samples)


def run(args: argparse.Namespace) -> dict[tuple[str, float], list[list[Any]]]:
    """All cells, those of an earlier run of the same code read from its log."""
    model, processor = load(args.device)
    args.log.parent.mkdir(parents=True, exist_ok=True)
    done: dict[tuple[str, float], list[list[Any]]] = {}
    if args.log.exists():
        for line in args.log.read_text().splitlines():
            cell = json.loads(line)
            if cell["number"] == args.number:
                done[cell["entry"], cell["keep"]] = cell["answers"]
    chosen = [e for e in entries(args.heads) if not args.only or e.preset in args.only]
    cells = [(Entry("full"), 1.0), *((e, keep) for keep in args.keep for e in chosen)]
    with Progress() as bar, args.log.open("a") as log:
        task = bar.add_task("cells", total=len(cells))
        for entry, keep in cells:
            bar.update(task, description=f"{entry} {keep:g}")
            if (str(entry), keep) not in done:
                began = time.perf_counter()
                method = foveate.full() if entry.preset == "full" else entry.method(keep)
                told = answers(model, processor, method, args.number)
                done[str(entry), keep] = told
                record = {"entry": str(entry), "keep": keep, "number": args.number}
                record |= {"seconds": round(time.perf_counter() - began, 1), "answers": told}
                log.write(json.dumps(record) + "\n")
                log.flush()
            bar.advance(task)
    return {(str(entry), keep): done[str(entry), keep] for entry, keep in cells}


def summary(
    cells: dict[tuple[str, float], list[list[Any]]], setting: dict[str, Any]
) -> dict[str, Any]:
    """The JSON of a comparison: where it comes from, every cell, and a table of text."""
    keeps = sorted({keep for entry, keep in cells if entry != "full"}, reverse=True)
    names = list(dict.fromkeys(entry for entry, _ in cells if entry != "full"))
    by_name = {n: [exact(cells[n, keep]) for keep in keeps] for n in names}
    order = sorted(names, key=lambda n: sum(by_name[n]), reverse=True)
    rows = [[f"`{n}`", *(f"{100 * share:.1f}" for share in by_name[n])] for n in order]
    whole = f"{100 * exact(cells['full', 1.0]):.1f}"
    table = {
        "columns": ["method", *(f"{keep:.0%}" for keep in keeps)],
        "rows": [["full cache", *[whole] * len(keeps)], *rows],
    }
    told = [
        {"entry": entry, "keep": keep, "number": len(some), "exact": round(exact(some), 4)}
        for (entry, keep), some in cells.items()
    ]
    return {**origin(), "setting": setting, "cells": told, "table": table}


def main() -> None:
    """Read the arguments, measure what is missing, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--number", type=int, default=200, help="questions for each cell")
    parser.add_argument("--keep", nargs="+", type=float, default=list(KEEPS))
    parser.add_argument("--only", nargs="+", help="presets; all by default")
    parser.add_argument("--heads", type=Path, help="head table of the embedded model")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--log", type=Path, default=Path("runs/tiny-presets.jsonl"))
    parser.add_argument("--output", type=Path, help="JSON file to write")
    args = parser.parse_args()
    cells = run(args)
    setting = {"number": args.number, "values": VALUES, "skill": "lookup", "grid": [16, 16]}
    setting |= {"first_seed": FIRST_SEED, "scope": "visual", "layouts": list(LAYOUTS)}
    result = summary(cells, setting)
    shown = Table(*result["table"]["columns"])
    for row in result["table"]["rows"]:
        shown.add_row(*row)
    Console().print(shown)

    if args.output is not None:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()

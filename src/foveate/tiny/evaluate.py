"""Measure the embedded model on fresh documents: `python -m foveate.tiny.evaluate --help`."""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import Progress
from rich.table import Table

import foveate
from foveate import Method
from foveate.cli.models import Loaded
from foveate.eval.asking.answering import Answerer
from foveate.eval.generated import FIRST_SEED
from foveate.eval.running.origin import origin
from foveate.eval.task import Message, Sample
from foveate.eval.tasks import task
from foveate.tiny import load
from foveate.tiny.documents import Document, Question, document
from foveate.tiny.layouts import LAYOUTS

BATCH = 32
TASK = task("row-256")  # of all, the one that lets answers be longest
INITIALS = 6


@dataclass(frozen=True)
class Case:
    """One cell of the study: what is asked, on which pages, under which cache."""

    skill: str
    layout: str
    grid: tuple[int, int]
    method: str = "full"
    keep: float = 1.0
    values: tuple[int, int] = (1, 6)


@dataclass(frozen=True)
class Answer:
    """A question, the right answer, and what the model said."""

    seed: int
    question: str
    answer: str
    said: str


def examples(case: Case, number: int, pages: int) -> Iterator[tuple[int, Document, Question]]:
    """Questions about held-out documents, four of each; training draws its seeds far above."""
    seed, left = FIRST_SEED, number
    options: dict[str, Any] = {"layout": case.layout, "grid": case.grid, "pages": pages}
    options |= {"values": case.values}
    options |= {"skills": (case.skill,), "initials": INITIALS if case.skill == "count" else None}
    while left:
        drawn = document(seed, **options)
        for question in drawn.questions[: min(4, left)]:
            left -= 1
            yield seed, drawn, question
        seed += 1


def answers(
    answerer: Answerer, asked: Sequence[tuple[int, Document, Question]], method: Method | None
) -> list[Answer]:
    """Greedy answers to single questions right after the pages, one padded batch."""
    samples = [
        Sample(str(seed), ((Message("user", (*drawn.pages, question.text)),),), (question.answer,))
        for seed, drawn, question in asked
    ]
    told = answerer.answers(TASK, samples, method)
    return [
        Answer(seed, question.text, question.answer, one.said)
        for (seed, _, question), one in zip(asked, told, strict=True)
    ]


def measure(answerer: Answerer, case: Case, number: int, pages: int, bar: Progress) -> list[Answer]:
    """Answers of one case."""
    asked = list(examples(case, number, pages))
    shown = bar.add_task(f"{case.skill} {case.layout} {case.method} {case.keep:g}", total=number)
    method = None if case.method == "full" else foveate.method(case.method, keep=case.keep)
    told: list[Answer] = []
    for start in range(0, number, BATCH):
        told += answers(answerer, asked[start : start + BATCH], method)
        bar.update(shown, completed=len(told))
    bar.remove_task(shown)
    return told


def share(samples: Sequence[Answer]) -> float:
    """Exact match."""
    return sum(sample.said == sample.answer for sample in samples) / len(samples)


def result(setting: dict[str, Any], measured: dict[Case, list[Answer]]) -> dict[str, Any]:
    """The JSON of a study: setting, a row for each case, every answer, and a table of text."""
    cases = [
        {
            **vars(case),
            "number": len(samples),
            "exact": round(share(samples), 4),
            "answers": [list(vars(sample).values()) for sample in samples],
        }
        for case, samples in measured.items()
    ]
    return {
        **origin(setting["device"]),
        "setting": setting,
        "cases": cases,
        "table": table(measured),
    }


def table(measured: dict[Case, list[Answer]]) -> dict[str, Any]:
    """Exact match in percent: a row for skill, grid and cache, a column for each layout."""
    layouts = [name for name in LAYOUTS if any(case.layout == name for case in measured)]
    rows: dict[tuple[str, str, str], dict[str, list[Answer]]] = {}
    for case, samples in measured.items():
        cache = "full" if case.method == "full" else f"{case.method} {case.keep:.0%}"
        key = (case.skill, f"{case.grid[0]} x {case.grid[1]}", cache)
        rows.setdefault(key, {})[case.layout] = samples
    texts = []
    for head, by_layout in rows.items():
        cells = [f"{share(by_layout[n]):.1%}" if n in by_layout else "" for n in layouts]
        mean = sum(map(share, by_layout.values())) / len(by_layout)
        count = str(sum(map(len, by_layout.values())))
        texts.append([*head, *cells, f"{mean:.1%}", count])
    return {"columns": ["skill", "grid", "cache", *layouts, "mean", "n"], "rows": texts}


def cases(args: argparse.Namespace) -> list[Case]:
    """The cells that the arguments ask for; only tables have rows to read."""
    caches = [("full", 1.0)] + [(m, k) for m in args.method for k in args.keep]
    return [
        Case(skill, layout, _sides(grid), method, keep, (args.values[0], args.values[1]))
        for grid in args.grid
        for skill in args.skill
        for method, keep in caches
        for layout in (["table"] if skill == "row" else args.layout)
    ]


def _sides(grid: str) -> tuple[int, int]:
    rows, columns = map(int, grid.split("x"))
    return rows, columns


def main() -> None:
    """Read the arguments, measure, print a table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--grid", nargs="+", default=["16x16"], help="cells: rows x columns")
    parser.add_argument("--layout", nargs="+", default=list(LAYOUTS), choices=list(LAYOUTS))
    parser.add_argument("--skill", nargs="+", default=["lookup", "row", "count", "reverse"])
    parser.add_argument("--number", type=int, default=100, help="questions for each case")
    parser.add_argument("--values", type=int, nargs=2, default=(1, 6), help="shortest, longest")
    parser.add_argument("--pages", type=int, default=1)
    parser.add_argument("--method", nargs="+", default=[], help="compression methods by name")
    parser.add_argument("--keep", nargs="+", type=float, default=[0.1], help="shares kept")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    args = parser.parse_args()
    answerer = Answerer(Loaded("embedded", *load(args.device)))
    measured = {}
    with Progress() as bar:
        total = bar.add_task("all", total=len(cases(args)))
        for case in cases(args):
            measured[case] = measure(answerer, case, args.number, args.pages, bar)
            bar.advance(total)
    setting = {**vars(args), "first_seed": FIRST_SEED}
    del setting["output"]
    summary = result(setting, measured)
    shown = Table(*summary["table"]["columns"])
    for row in summary["table"]["rows"]:
        shown.add_row(*row)
    bar.console.print(shown)
    if args.output is not None:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(summary) + "\n")


if __name__ == "__main__":
    main()

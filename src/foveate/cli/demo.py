"""`foveate demo`: one generated document, several questions, the full cache and four small ones."""

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Annotated, Any

import typer

from foveate.cli import console

SHARES = (0.5, 0.1, 0.05, 0.01)


@dataclass(frozen=True)
class Column:
    """What one cache answered, and whether each answer is right."""

    name: str
    answers: tuple[Any, ...]
    right: tuple[bool, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the column as plain values."""
        steps = [one.decode_ms for one in self.answers if one.decode_ms is not None]
        return {
            "cache": self.name,
            "answers": [one.text for one in self.answers],
            "right": list(self.right),
            "visual_total": self.answers[0].visual_total,
            "visual_kept": fmean(one.visual_kept for one in self.answers),
            "bytes": round(fmean(one.bytes_stored for one in self.answers)),
            "decode_ms": median(steps) if steps else None,
        }


@console.reported
def command(
    seed: Annotated[int, typer.Option("--seed", min=0, help="Another seed, another document.")] = 7,
    layout: Annotated[
        str, typer.Option("--layout", help="rows, columns, receipt or table.")
    ] = "rows",
    questions: Annotated[int, typer.Option("--questions", min=1, help="How many to ask.")] = 6,
    save: Annotated[
        Path | None, typer.Option("--save", help="Write the document to this PNG file.")
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option("--report", help="Show the first question on a page: an HTML file."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Answer questions about a generated document with the full cache and with AirCache."""
    from foveate.cli import models
    from foveate.tiny.documents import document

    page = document(seed, layout=layout)
    asked = page.questions[:questions]
    if save is not None:
        _save(page.pages[0], save)
    with console.only_stderr():
        with console.err().status("loading the embedded model"):
            loaded = models.load()
        columns = [column.to_dict() for column in _columns(loaded, page, asked)]
        if report is not None:
            _report(loaded, page, asked[0], report)
    texts = [{"question": one.text, "right_answer": one.answer} for one in asked]
    if json:
        console.print_json({"seed": seed, "questions": texts, "caches": columns})
    else:
        _show(texts, columns)
        _explain(texts, columns, save)
        if report is not None:
            console.out().print(f"\nOpen {report} in a browser.", soft_wrap=True, markup=False)


def _columns(loaded: Any, page: Any, asked: Any) -> list[Column]:
    import foveate
    from foveate.cli.answers import answer, prepare

    runs: dict[str, Any] = {"full": None}
    runs |= {f"{100 * share:g} %": foveate.method("aircache", keep=share) for share in SHARES}
    columns = []
    with console.progress() as bar:
        task = bar.add_task("answering", total=len(runs) * len(asked))
        for name, method in runs.items():
            bar.update(task, description=f"answering, {name}")
            answers = []
            for question in asked:
                inputs = prepare(loaded, [page.pages[question.page]], question.text)
                answers.append(answer(loaded, inputs, method, max_new_tokens=32))
                bar.advance(task)
            right = tuple(a.text == q.answer for a, q in zip(answers, asked, strict=True))
            columns.append(Column(name, tuple(answers), right))
    return columns


def _report(loaded: Any, page: Any, question: Any, path: Path) -> None:
    """Write the page that shows what is kept for a question."""
    from foveate.report import collect, write

    pictures = [page.pages[question.page]]
    write(collect(loaded, pictures, question.text, ["aircache"], SHARES, max_new_tokens=32), path)


def _save(picture: Any, path: Path) -> None:
    from foveate.errors import InputError

    try:
        picture.save(path)
    except (OSError, ValueError) as error:
        raise InputError(
            f"--save {path}: the picture cannot be written ({error}); give a file name that ends "
            "in .png, in a folder you may write to"
        ) from error


def _show(texts: list[dict[str, str]], columns: list[dict[str, Any]]) -> None:
    from rich.markup import escape
    from rich.table import Table

    total = columns[0]["visual_total"]
    table = Table(
        title=f"One document of {total} visual tokens: full cache, and AirCache at a share"
    )
    table.add_column("question")
    for column in columns:
        table.add_column(column["cache"], justify="right", overflow="fold")
    for index, text in enumerate(texts):
        cells = (
            f"{escape(c['answers'][index])} {console.mark(c['right'][index])}" for c in columns
        )
        table.add_row(escape(text["question"]), *cells)
    table.add_section()
    right = (f"{sum(column['right'])} of {len(texts)}" for column in columns)
    table.add_row("right answers", *right)
    table.add_row("visual tokens kept", *(f"{column['visual_kept']:.1f}" for column in columns))
    table.add_row("cache bytes", *(console.size(column["bytes"]) for column in columns))
    table.add_row("ms per new token", *(_milliseconds(column["decode_ms"]) for column in columns))
    console.out().print(table)


def _milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _explain(texts: list[dict[str, str]], columns: list[dict[str, Any]], save: Path | None) -> None:
    full, tenth = columns[0], next(c for c in columns if c["cache"] == "10 %")
    ratio = full["bytes"] / tenth["bytes"]
    screen = console.out()
    screen.print(
        f"\nWith a tenth of the visual tokens the cache is {ratio:.1f} times smaller, and "
        f"{sum(tenth['right'])} of {len(texts)} answers are right ({sum(full['right'])} with the "
        "full cache). On a document this small, time per token is mostly overhead; `foveate bench` "
        "measures it on 4,096 visual tokens.",
        soft_wrap=True,
    )
    page, name = save or Path("page.png"), _called()
    first = "" if save else f"  {name} demo --save {page}\n"
    screen.print(
        f"\nTry next:\n{first}"
        f'  {name} ask {page} "{texts[0]["question"]}" --keep 0.05 --compare\n'
        f"  {name} report               # which patches are kept: report.html, for a browser\n"
        f'  {name} ask photo.jpg "What is unusual here?" --model <any Hugging Face VLM>\n'
        f"  {name} methods",
        soft_wrap=True,
        markup=False,
    )


def _called() -> str:
    """Return how the command is called: its place, where its name alone would not be found."""
    place = sys.argv[0]
    is_lost = Path(place).name == "foveate" and shutil.which("foveate") is None
    return place if is_lost else "foveate"

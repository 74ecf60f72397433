"""`foveate report IMAGE... QUESTION`: one HTML file that shows what is kept, and what that does."""

from pathlib import Path
from typing import Annotated, Any

import typer

from foveate.cli import console
from foveate.cli.ask import (
    Attention,
    Device,
    Dtype,
    Json,
    Model,
    NewTokens,
    Options,
    Pixels,
    Quantized,
    Storage,
)
from foveate.cli.images import MAX_PIXELS

METHODS, KEEPS = "foveate,aircache,snapkv", "0.5,0.1,0.05,0.01"
SEED, ASKED = 15, 2  # a document that is pleasant to look at, and one of its questions

Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="IMAGE... QUESTION",
        help="Image files, then the question; a generated document if none is given.",
        show_default=False,
    ),
]
Methods = Annotated[
    str | None,
    typer.Option(
        "--methods",
        help=f"Names from `foveate methods`, commas between them; {METHODS} if neither these nor "
        "--entry is given.",
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
Keep = Annotated[str, typer.Option("--keep", help="Shares or tokens that are kept.")]
Measured = Annotated[
    bool,
    typer.Option(
        "--measure/--no-measure",
        help="Also follow the full answer token by token, which takes twice the time.",
    ),
]
Out = Annotated[Path, typer.Option("--out", help="The file to write.")]


@console.reported
def command(
    words: Words = None,
    methods: Methods = None,
    entry: Entries = None,
    option: Options = None,
    keep: Keep = KEEPS,
    model: Model = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    attn: Attention = None,
    storage: Storage = "dense",
    quantized: Quantized = None,
    max_new_tokens: NewTokens = 64,
    max_pixels: Pixels = MAX_PIXELS,
    measure: Measured = True,
    out: Out = Path("report.html"),
    json: Json = False,
) -> None:
    """Write one HTML file that shows which patches are kept, and what that does to the answer."""
    from foveate.cli import grids, models, options
    from foveate.report import collect, write
    from foveate.report.document import check

    check(out)
    entries = grids.entries(METHODS if methods is None and not entry else methods, entry, option)
    keeps = options.several("--keep", keep, options.parse_keep, KEEPS)
    pictures, question = _asked(words, model, max_pixels)
    with console.only_stderr():
        with console.err().status("loading the model"):
            loaded = models.load(model, dtype, device, attn)
        with console.meter() as tell:
            found = collect(
                loaded,
                pictures,
                question,
                entries,
                keeps,
                max_new_tokens=max_new_tokens,
                measured=measure,
                tell=tell,
                storage=storage,
                quantized=quantized,
            )
    path = write(found, out)
    if json:
        rows = {"question": question, "model": loaded.name, "runs": found.summary()}
        console.print_json({"out": str(path), **rows})
    else:
        _show(found, path)


def _asked(words: list[str] | None, model: str | None, max_pixels: int) -> tuple[list[Any], str]:
    """Return the pictures and the question that the words name."""
    from foveate.cli import ask, images

    if words:
        *paths, question = words
        ask.check(paths, question)
        return [images.open_image(path, max_pixels) for path in paths], question
    if model is not None:
        from foveate.errors import InputError

        raise InputError(
            f"--model {model} came without a picture; give at least one image file and then the "
            "question, in quotes"
        )
    from foveate.tiny.documents import document

    page = document(SEED)
    return [page.pages[0]], page.questions[ASKED].text


def _show(found: Any, path: Path) -> None:
    """Print the answers on stdout, and where the page is."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(show_edge=False, pad_edge=False)
    for heading in ("method", "kept", "answer", ""):
        table.add_column(heading)
    table.add_column("bytes", justify="right")
    table.add_row(
        "full cache", "", escape(found.full["answer"]), "", console.size(found.full["bytes_stored"])
    )
    for run in found.runs:
        if "error" in run:
            table.add_row(escape(run["method"]), run["budget"], escape(run["error"]), "", "")
            continue
        table.add_row(
            escape(run["method"]),
            run["budget"],
            escape(run["answer"]),
            console.mark(run["answer"] == found.full["answer"]),
            console.size(run["bytes_stored"]),
        )
    console.out().print(table)
    console.out().print(
        f"\nOpen [bold]{escape(str(path))}[/] in a browser; it needs no network.", soft_wrap=True
    )

"""`foveate ask IMAGE... QUESTION`: one answer, with a compressed cache."""

from typing import Annotated, Any

import typer

from foveate.cli import console
from foveate.cli.images import MAX_PIXELS

Words = Annotated[
    list[str],
    typer.Argument(
        metavar="IMAGE... QUESTION", help="Image files, then the question.", show_default=False
    ),
]
Model = Annotated[
    str | None,
    typer.Option("--model", help="Hugging Face id or folder; the embedded model if not given."),
]
MethodName = Annotated[
    str,
    typer.Option("--method", help="A name from `foveate methods`, or yours as module:function."),
]
Keep = Annotated[
    str | None,
    typer.Option(
        "--keep",
        help="Share kept, such as 0.1, tokens per head and layer, such as 64, or auto (--option "
        "mass=0.95); the method's own default if not given.",
    ),
]
Options = Annotated[
    list[str] | None,
    typer.Option(
        "--option", metavar="NAME=VALUE", help="An option of the method; may be repeated."
    ),
]
Dtype = Annotated[str, typer.Option("--dtype", help="auto, float32, bfloat16 or float16.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps ...")]
Attention = Annotated[
    str | None, typer.Option("--attn", help="Attention: sdpa, eager, flash_attention_2 ...")
]
Storage = Annotated[str, typer.Option("--storage", help="dense, ragged, auto or static.")]
Quantized = Annotated[
    str | None, typer.Option("--quantized", help="Survivors in fewer bits: fp8, hqq or quanto.")
]
NewTokens = Annotated[
    int, typer.Option("--max-new-tokens", min=1, help="Longest answer in tokens.")
]
Compare = Annotated[bool, typer.Option("--compare", help="Also answer with the full cache.")]
Pixels = Annotated[int, typer.Option("--max-pixels", min=1, help="Refuse images with more pixels.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@console.reported
def command(
    words: Words,
    model: Model = None,
    method: MethodName = "aircache",
    keep: Keep = None,
    option: Options = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    attn: Attention = None,
    storage: Storage = "dense",
    quantized: Quantized = None,
    max_new_tokens: NewTokens = 64,
    compare: Compare = False,
    max_pixels: Pixels = MAX_PIXELS,
    json: Json = False,
) -> None:
    """Answer a question about images with a compressed cache."""
    from foveate.cli import answers, images, models, options

    *paths, question = words
    check(paths, question)
    pictures = [images.open_image(path, max_pixels) for path in paths]
    chosen = options.build_method(method, keep, option or [])
    settings = {"storage": storage, "quantized": quantized}
    with console.only_stderr(), console.err().status("loading the model"):
        loaded = models.load(model, dtype, device, attn)
        inputs = answers.prepare(loaded, pictures, question)
    runs: dict[str, Any] = {method if keep is None else f"{method} {keep}": chosen}
    if compare:
        runs = {"full cache": None, **runs}
    found = {}
    for name, run in runs.items():
        with console.only_stderr(), console.err().status(f"answering: {name}"):
            found[name] = answers.answer(loaded, inputs, run, max_new_tokens, **settings)
    if json:
        asked = {"question": question, "images": paths, "model": loaded.name, "method": str(chosen)}
        console.print_json(asked | _keyed(found))
    else:
        _show(found)


def check(paths: list[str], question: str) -> None:
    """Raise `InputError` where the words are no images and a question."""
    from foveate.errors import InputError

    if not paths:
        raise InputError(
            f"only {question!r} came; give at least one image file and then the question, in quotes"
        )
    if not question.strip():
        raise InputError("the question is empty; give it last, in quotes")


def _keyed(found: dict[str, Any]) -> dict[str, Any]:
    """Return the compressed answer, and the one of the full cache under `full` if asked for."""
    *full, compressed = (one.to_dict() for one in found.values())
    return {**compressed, **({"full": full[0]} if full else {})}


def _show(found: dict[str, Any]) -> None:
    """Print the answer on stdout and its cost on stderr, or a comparison on stdout."""
    from rich.markup import escape
    from rich.table import Table

    screen = console.out()
    if len(found) == 1:
        screen.print(escape(next(iter(found.values())).text), soft_wrap=True)
    table = Table(show_edge=False, pad_edge=False)
    for heading in ("cache", *(["answer"] if len(found) > 1 else [])):
        table.add_column(heading)
    for heading in ("visual tokens", "bytes", "prefill", "per token"):
        table.add_column(heading, justify="right")
    for name, one in found.items():
        step = "-" if one.decode_ms is None else f"{one.decode_ms:.1f} ms"
        table.add_row(
            name,
            *([escape(one.text)] if len(found) > 1 else []),
            f"{one.visual_kept:.0f} of {one.visual_total}",
            console.part(one.bytes_stored, one.bytes_full),
            f"{one.prefill_ms:.0f} ms",
            step,
        )
    (screen if len(found) > 1 else console.err()).print(table)
    for note in dict.fromkeys(note for one in found.values() for note in one.notes):
        console.err().print(f"note: {escape(note)}", soft_wrap=True)

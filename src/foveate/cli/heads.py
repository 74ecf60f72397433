"""`foveate heads`: which attention heads look at the words that the model reads out."""

from pathlib import Path
from typing import Annotated, Any

import typer

from foveate.cli import console
from foveate.cli.ask import Attention, Device, Dtype, Json, Model, Pixels
from foveate.cli.images import MAX_PIXELS
from foveate.cli.tables import Data, Seed, asked, check_folder, described, unwritable

Count = Annotated[
    int | None,
    typer.Option("--pages", min=1, help="Generated pages, or the first of --data; 100, or all."),
]
Prompt = Annotated[
    str | None,
    typer.Option(
        "--prompt",
        help="What makes the model read the page; the paper's sentence if not given, questions "
        "about every entry for the embedded model.",
    ),
]
NewTokens = Annotated[
    int, typer.Option("--max-new-tokens", min=1, help="Longest answer in tokens.")
]
Pieces = Annotated[
    str, typer.Option("--pieces", help="Token texts: decoded, or raw as in the vocabulary.")
]
GridText = Annotated[
    str | None,
    typer.Option("--grid", help="Where a picture's tokens are, such as 24x24 or 16x16@-256."),
]
Out = Annotated[Path, typer.Option("--out", help="JSON file for the table.")]
Plot = Annotated[
    Path | None, typer.Option("--plot", help="PNG file for a heat map, layer by head.")
]


@console.reported
def command(
    model: Model = None,
    pages: Count = None,
    seed: Seed = 0,
    data: Data = None,
    prompt: Prompt = None,
    max_new_tokens: NewTokens = 1024,
    pieces: Pieces = "decoded",
    grid: GridText = None,
    out: Out = Path("heads.json"),
    plot: Plot = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    attn: Attention = None,
    max_pixels: Pixels = MAX_PIXELS,
    json: Json = False,
) -> None:
    """Score every attention head by how often it looks at the word being read (SparseMM)."""
    from foveate.calibration.boxes import Stated
    from foveate.cli import models
    from foveate.cli.pages import find
    from foveate.option import check_choice

    check_choice("--pieces", pieces, ("decoded", "raw"))
    stated = None if grid is None else Stated.parse(grid)
    check_folder(out, plot)
    source = find(data, pages, seed, prompt, model is None, max_pixels, usual=100)
    with console.only_stderr():
        with console.err().status("loading the model"):
            loaded = models.load(model, dtype, device, attn)
        numbers = _scored(loaded, source, max_new_tokens, pieces == "raw", stated)
    settings = {"pieces": pieces, "max_new_tokens": max_new_tokens, "grid": grid}
    content = described("heads", loaded) | numbers | asked(data, seed, source.prompt) | settings
    _write(content, out, plot)
    if json:
        console.print_json(content | {"out": str(out), "plot": str(plot) if plot else None})
    else:
        _show(content, out, plot)


def _scored(
    loaded: Any, source: Any, max_new_tokens: int, raw: bool, stated: Any
) -> dict[str, Any]:
    """Return the scores of all pages, and how concentrated they are."""
    from foveate.calibration.heads import Tally, concentration
    from foveate.cli.answers import prepare
    from foveate.hf.views.cells import picture_cells
    from foveate.hf.watch import greedy, shape

    tally = Tally.empty(*shape(loaded.model)[:2])
    how = loaded.processor.image_processor
    with console.progress() as bar:
        task = bar.add_task("reading pages", total=len(source))
        for page in source:
            size = page.image.size
            for prompt in page.prompts:
                inputs = prepare(loaded, [page.image], prompt)
                cells = picture_cells(
                    loaded.model.config, inputs, size, stated=stated, processor=how
                )
                tokens, looked = greedy(loaded.model, inputs, max_new_tokens)
                tally.add(_texts(loaded, tokens, raw), looked, page.chunks, cells, size)
            tally.pages += 1
            bar.update(task, advance=1, description=f"reading pages, {tally.used} tokens used")
    numbers = tally.table()
    return numbers | {"concentration": concentration(numbers["scores"])}


def _texts(loaded: Any, tokens: list[int], raw: bool) -> list[str]:
    """Return the text of every token: decoded alone, or as it is written in the vocabulary."""
    tokenizer = getattr(loaded.processor, "tokenizer", loaded.processor)
    if raw:
        return [str(piece) for piece in tokenizer.convert_ids_to_tokens(tokens)]
    return [str(tokenizer.decode([token])) for token in tokens]


def _write(content: dict[str, Any], out: Path, plot: Path | None) -> None:
    """Write the table, and the picture if one is wanted."""
    from foveate.calibration.picture import heat_map
    from foveate.calibration.tables import save_table

    save_table(out, content)
    if plot is None:
        return
    title = f"{content['model']}: share of the visual-head score, {content['pages']} pages"
    try:
        heat_map(content["scores"], title).save(plot)
    except (OSError, ValueError) as error:
        raise unwritable(plot, error) from error


def _show(content: dict[str, Any], out: Path, plot: Path | None) -> None:
    """Print the best heads, and how concentrated the scores are."""
    from rich.markup import escape
    from rich.table import Table

    heads = sorted(
        (
            (value, layer, head)
            for layer, row in enumerate(content["scores"])
            for head, value in enumerate(row)
        ),
        key=lambda one: (-one[0], one[1:]),
    )
    table = Table(title=escape(f"Visual heads of {content['model']}"), show_edge=False)
    for heading in ("layer", "query head", "share of score", "looks at the word"):
        table.add_column(heading, justify="right")
    for value, layer, head in heads[:10]:
        hit = content["hit_rate"][layer][head]
        table.add_row(str(layer), str(head), f"{value:.3f}", f"{100 * hit:.0f} %")
    screen, found = console.out(), content["concentration"]
    screen.print(table)
    screen.print(
        f"{content['tokens_used']} of {content['tokens']} tokens on {content['pages']} pages were "
        f"used. The best 5 % of the {found['heads']} heads hold "
        f"{100 * found['top_5_percent']:.0f} % of the score, {found['zero_heads']} hold none.\n"
        f"written: {escape(str(out))}" + (f", {escape(str(plot))}" if plot else ""),
        soft_wrap=True,
    )

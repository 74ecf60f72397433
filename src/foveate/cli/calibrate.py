"""`foveate calibrate redundancy|sizes`: tables for presets that else measure every prompt."""

from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import typer

from foveate.cli import console
from foveate.cli.ask import Attention, Device, Dtype, Json, Model, Pixels
from foveate.cli.images import MAX_PIXELS
from foveate.cli.tables import Data, Seed, asked, check_folder, described

WHAT = ("redundancy", "sizes")


What = Annotated[str, typer.Argument(help="redundancy (MixKV) or sizes (PrefixKV).")]
Count = Annotated[
    int | None,
    typer.Option("--pages", min=1, help="Generated pages, or the first of --data; 10, or all."),
]
Prompt = Annotated[str | None, typer.Option("--prompt", help="What is asked about every page.")]
Keep = Annotated[
    str | None, typer.Option("--keep", help="For sizes: share or tokens kept; 0.1 if not given.")
]
Out = Annotated[
    Path | None, typer.Option("--out", help="JSON file; redundancy.json or sizes.json.")
]


@console.reported
def command(
    what: What,
    model: Model = None,
    pages: Count = None,
    seed: Seed = 0,
    data: Data = None,
    prompt: Prompt = None,
    keep: Keep = None,
    out: Out = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    attn: Attention = None,
    max_pixels: Pixels = MAX_PIXELS,
    json: Json = False,
) -> None:
    """Measure a model's key redundancy, or its layer sizes at a budget, as a table."""
    from foveate.calibration.tables import KINDS, save_table
    from foveate.cli import models
    from foveate.cli.pages import find
    from foveate.option import check_choice

    check_choice("the table", what, WHAT)
    place = out or Path(f"{what}.json")
    check_folder(place)
    budget = _keep(what, keep)
    method = None if budget is None else _prefixkv(budget)
    source = find(data, pages, seed, prompt, model is None, max_pixels, usual=10)
    with console.only_stderr():
        with console.err().status("loading the model"):
            loaded = models.load(model, dtype, device, attn)
        values = _measured(loaded, source, method)
    content = described(what, loaded) | {KINDS[what].field: values, "pages": len(source)}
    content |= asked(data, seed, source.prompt) | ({} if budget is None else {"keep": budget})
    save_table(place, content)
    if json:
        console.print_json(content | {"out": str(place)})
    else:
        _show(content, KINDS[what].field, place)


def _keep(what: str, keep: str | None) -> float | int | None:
    from foveate.cli.options import parse_keep
    from foveate.errors import InputError

    if what == "sizes":
        budget = parse_keep(keep or "0.1")
        if isinstance(budget, str):
            raise InputError(f"--keep {budget} has no sizes to measure; give a share such as 0.1")
        return budget
    if keep is not None:
        raise InputError(f"--keep {keep} came for redundancy, which has no budget; leave it out")
    return None


def _prefixkv(keep: float | int) -> Any:
    import foveate

    return foveate.method("prefixkv", keep=keep)


def _measured(loaded: Any, source: Any, method: Any) -> list[Any]:
    """Return the mean over pages, each with its first prompt."""
    import torch

    from foveate.cli.answers import prepare
    from foveate.hf.prefill import kept_shares, key_redundancy

    found = []
    with console.progress() as bar:
        task = bar.add_task("reading pages", total=len(source))
        for page in source:
            inputs = prepare(loaded, [page.image], page.prompts[0])
            if method is None:
                found.append(key_redundancy(loaded.model, inputs))
            else:
                found.append(kept_shares(loaded.model, inputs, method))
            bar.advance(task)
    return torch.stack(found).mean(0).tolist()


def _show(content: dict[str, Any], field: str, place: Path) -> None:
    """Print one line per layer."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(f"{field} of {content['model']}"), show_edge=False)
    table.add_column("layer", justify="right")
    rows = [row if isinstance(row, list) else [row] for row in content[field]]
    for head in range(len(rows[0])):
        table.add_column(f"KV head {head}" if len(rows[0]) > 1 else "kept share", justify="right")
    for layer, row in enumerate(rows):
        table.add_row(str(layer), *(f"{value:.3f}" for value in row))
    screen = console.out()
    screen.print(table)
    mean = fmean(value for row in rows for value in row)
    screen.print(
        f"mean {mean:.3f} over {content['pages']} pages\nwritten: {escape(str(place))}",
        soft_wrap=True,
    )

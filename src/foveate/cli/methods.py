"""`foveate methods [NAME]`: what can be chosen, where it comes from, and its options."""

from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.markup import escape

from foveate.cli import console


@console.reported
def command(
    name: Annotated[
        str | None, typer.Argument(help="Only this one, with all its options.", show_default=False)
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List the compression methods with their papers and options."""
    import foveate

    infos = foveate.methods()
    if name is not None:
        foveate.method(name)  # raises for an unknown one, and names the nearest
        infos = [info for info in infos if info.name in name.split("+")]
    if json:
        console.print_json({"methods": [asdict(info) for info in infos]})
        return
    for info in infos:
        _show(info, whole=name is not None)


def _show(info: Any, whole: bool) -> None:
    screen = console.out()
    source = f" (arXiv {info.arxiv})" if info.arxiv else ""
    screen.print(f"[bold]{escape(info.name)}[/]  {escape(info.about)}", soft_wrap=True)
    screen.print(f"    {escape(info.paper)}{source}", soft_wrap=True)
    if whole:
        for option in info.options:
            allowed = escape(" | ".join(option.allowed))
            screen.print(
                f"    {option.name} = {escape(str(option.default))}   ({allowed})", soft_wrap=True
            )
        if info.more:
            screen.print(f"    and {escape(info.more)}")
        screen.print(f"Differs from the paper: {escape(info.notes)}", soft_wrap=True)
    else:
        screen.print(
            "    options: " + ", ".join(option.name for option in info.options), soft_wrap=True
        )

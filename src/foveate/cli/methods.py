"""`foveate methods`: what can be chosen, where it comes from, and its options."""

from dataclasses import asdict
from typing import Annotated

import typer

from foveate.cli import console


@console.reported
def command(
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List the compression methods with their papers and options."""
    import foveate

    infos = foveate.methods()
    if json:
        console.print_json({"methods": [asdict(info) for info in infos]})
        return
    from rich.table import Table

    table = Table()
    for heading in ("method", "paper", "arXiv", "options"):
        table.add_column(heading, overflow="fold")
    for info in infos:
        table.add_row(info.name, info.paper, info.arxiv, ", ".join(map(str, info.options)))
    console.out().print(table)

"""`foveate doctor`: what is wrong with this installation, and the cure."""

from dataclasses import asdict
from typing import Annotated

import typer
from rich.markup import escape

from foveate.cli import checks, console

COLOURS = {"ok": "green", "note": "yellow", "broken": "bold red"}


@console.reported
def command(
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check versions, devices, attention back-ends, write access and the embedded model."""
    with console.only_stderr(), console.err().status("looking around"):
        found = list(checks.run())
    broken = [check.name for check in found if check.status == "broken"]
    if json:
        console.print_json({"healthy": not broken, "checks": [asdict(check) for check in found]})
    else:
        _show(found, broken)
    if broken:
        raise typer.Exit(console.FAILED)


def _show(found: list[checks.Check], broken: list[str]) -> None:
    screen = console.out()
    width = max(len(check.name) for check in found)
    for check in found:
        status = f"[{COLOURS[check.status]}]{check.status:6}[/]"
        screen.print(f"{status}  {check.name:{width}}  {escape(check.found)}", soft_wrap=True)
        if check.cure:
            screen.print(f"{'':{width + 8}}  -> {escape(check.cure)}", soft_wrap=True)
    screen.print(f"broken: {', '.join(broken)}" if broken else "nothing is broken")

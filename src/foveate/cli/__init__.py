"""The command line: one file per subcommand, and only the one that is called gets imported."""

import sys
from collections.abc import Iterable
from importlib import import_module

import typer

COMMANDS = {name: name for name in ("demo", "ask", "report", "methods", "heads", "calibrate")}
COMMANDS |= {"eval": "evaluate", "bench": "bench", "serve": "serve"}  # by name: its module
COMMANDS |= {"doctor": "doctor"}


def application(names: Iterable[str] = COMMANDS) -> typer.Typer:
    """Return the application with these subcommands."""
    app = typer.Typer(
        name="foveate",
        help="Compress the visual KV cache of vision-language models, and see what it costs.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    for name in names:
        app.command(name)(import_module(f"foveate.cli.{COMMANDS[name]}").command)
    return app


def main() -> None:
    """Run the subcommand that the command line names."""
    first = next((word for word in sys.argv[1:] if not word.startswith("-")), None)
    application((first,) if first in COMMANDS else COMMANDS)()


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"foveate {version('foveate')}")
        raise typer.Exit()


def _root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Show the version and exit."
    ),
) -> None:
    """Do nothing by itself: the subcommands do the work."""

"""What a command says: tables or one JSON object on stdout, progress and errors on stderr."""

import contextlib
import functools
import json
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, ParamSpec

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from foveate.errors import FoveateError

P = ParamSpec("P")
BAD_INPUT, FAILED = 2, 1


def out() -> Console:
    """Return the console for results."""
    return Console(file=sys.stdout, highlight=False)


def err() -> Console:
    """Return the console for progress and errors."""
    return Console(file=sys.stderr, highlight=False)


def progress(left: bool = False) -> Progress:
    """Return a progress bar on stderr with what is being worked on, and the time gone or left."""
    return Progress(
        TextColumn("[progress.description]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn() if left else TimeElapsedColumn(),
        console=err(),
        transient=True,
        speed_estimate_period=600,
    )


@contextlib.contextmanager
def meter(is_shown: bool = True) -> Iterator[Callable[[int, int, str], None]]:
    """Show how much is done, of how much, and what is being done; time left from what was seen.

    Where stderr is no terminal, every twentieth of the whole is a line.
    """
    if not is_shown:
        yield lambda done, total, what: None
        return
    if not err().is_terminal:
        yield _Lines()
        return
    with progress(left=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total, what: bar.update(
            task, completed=done, total=total, description=escape(what)
        )


class _Lines:
    """Says how far something is, one line after the other."""

    def __init__(self) -> None:
        self._began: tuple[float, int] | None = None
        self._told = -1

    def __call__(self, done: int, total: int, what: str) -> None:
        now = time.monotonic()
        if self._began is None or self._began[1] == done:  # what comes before is no work
            self._began = (now, done)
        part = 20 * done // max(total, 1)
        if part == self._told:
            return
        self._told = part
        since, before = self._began
        left = ""
        if before < done < total:
            seconds = (now - since) / (done - before) * (total - done)
            left = f", about {timedelta(seconds=round(seconds))} left"
        err().print(f"{done} of {total}{left}: {what}", soft_wrap=True, markup=False)


def mark(right: bool) -> str:
    """Return a sign for right or wrong that needs no colour, and Unicode only where it shows."""
    fancy = (sys.stdout.encoding or "").lower().startswith("utf")
    word = ("✓" if right else "✗") if fancy else ("ok" if right else "no")
    return f"[{'green' if right else 'red'}]{word}[/]"


def size(count: float) -> str:
    """Return a number of bytes as people read it.

    >>> size(512), size(2_621_440)
    ('512 B', '2.5 MiB')
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError("unreachable: GiB returns")


def part(count: float, whole: float) -> str:
    """Return a number of bytes out of another, with one unit where it is the same.

    >>> part(512, 2048), part(106_496, 814_080)
    ('512 B of 2.0 KiB', '104.0 of 795.0 KiB')
    """
    few, all_of_them = size(count), size(whole)
    unit = " " + all_of_them.split()[1]
    return f"{few.removesuffix(unit)} of {all_of_them}"


def print_json(value: dict[str, Any]) -> None:
    """Write one JSON object to stdout."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=True) + "\n")


@contextlib.contextmanager
def only_stderr() -> Iterator[None]:
    """Send to stderr whatever libraries print while a result is being worked out."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def reported(command: Callable[P, None]) -> Callable[P, None]:
    """Return the command with known errors as one message on stderr and an exit code."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except FoveateError as error:
            err().print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
            raise typer.Exit(BAD_INPUT if isinstance(error, ValueError) else FAILED) from None
        except ImportError as error:
            err().print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
            err().print("a package is missing or broken: `foveate doctor` finds it, with the cure")
            raise typer.Exit(FAILED) from None
        except KeyboardInterrupt:
            err().print("stopped")
            raise typer.Exit(130) from None
        except Exception as error:
            if type(error).__name__ not in ("OutOfMemoryError", "MemoryError"):
                raise
            err().print(f"[bold red]error:[/] out of memory: {escape(str(error))}", soft_wrap=True)
            raise typer.Exit(FAILED) from None

    return run


def program(command: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
    """Run the command of a module that is a program of its own; exit as `foveate` would."""
    try:
        reported(command)(*args, **kwargs)
    except typer.Exit as stop:
        raise SystemExit(stop.exit_code) from None

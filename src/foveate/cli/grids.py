"""What the words of a command line ask for: tasks, methods, and the grid of both."""

from dataclasses import replace
from pathlib import Path
from typing import Any

METHODS, KEEPS = "aircache,snapkv", "0.5,0.1"


def word(name: str) -> str:
    """Return how an option is written on the command line."""
    return "--" + name.replace("_", "-")


def tasks(
    names: list[str] | None, data: list[str], own: dict[str, Any], number: int | None
) -> tuple[Any, ...]:
    """Return the tasks of these names, and those of the data, which `own` describes."""
    from foveate import methods
    from foveate.errors import InputError
    from foveate.eval.tasks import task

    astray = [name for name in names or [] if name in {info.name for info in methods()}]
    if astray:
        raise InputError(
            f"{astray[0]!r} is a method and no task; give several with commas and without spaces, "
            f"as --methods {METHODS}"
        )
    found = tuple(task(name) for name in names or [])
    if data:
        if names and number is None:
            raise InputError(
                f"{data[0]} has as many questions as it has rows, and {names[0]} has no end; give "
                "--number, which holds for both"
            )
        return (*found, *_local(data, own))
    for option, value in own.items():
        if value is not None:
            raise InputError(f"{word(option)} is about files of yours; give --data, too")
    if not found:
        raise InputError(
            "there is nothing to ask; give a task such as lookup-256, or --data, or --study; "
            "`foveate eval list` shows them"
        )
    return found


def _local(data: list[str], own: dict[str, Any]) -> list[Any]:
    """Return the tasks of files; where files are called alike, their folders tell them apart."""
    from foveate.eval.local import local_task

    places, found = [], []
    for given in data:
        shape, path = _taken_apart(given)
        places.append(Path(path))
        found.append(local_task(path, **{**own, **({"shape": shape} if shape else {})}))
    names = [task.name for task in found]
    return [
        replace(task, name=f"{place.expanduser().resolve().parent.name}/{task.name}")
        if names.count(task.name) > 1
        else task
        for place, task in zip(places, found, strict=True)
    ]


def _taken_apart(given: str) -> tuple[str, str]:
    """Return shape and path of such words as docvqa=pages.json; a path alone has no shape."""
    from foveate.eval.local.shapes import SHAPES

    shape, equals, path = given.partition("=")
    is_path = not equals or (shape not in SHAPES and Path(given).exists())
    return ("", given) if is_path else (shape, path)


def entries(
    methods: str | None, given: list[str] | None, option: list[str] | None
) -> tuple[Any, ...]:
    """Return the methods with their options."""
    from foveate.cli.options import parse_entry, parse_options
    from foveate.errors import InputError
    from foveate.eval.entry import Entry

    if methods is None and not given:
        methods = METHODS
    names = [name.strip() for name in (methods or "").split(",") if name.strip()]
    if methods is not None and not names:
        raise InputError(f"--methods {methods!r} names no method; leave it out, or give {METHODS}")
    if option and not names:
        raise InputError("--option is for --methods; write it into --entry, as snapkv(window=16)")
    named = (Entry(name, parse_options(name, option or [])) for name in names)
    return (*named, *map(parse_entry, given or []))


def asked(tasks: tuple[Any, ...], entries: tuple[Any, ...], keep: str | None) -> tuple[Any, Any]:
    """Return a study without tables of its own, and its grid."""
    from foveate.cli.options import parse_keep, several
    from foveate.eval.grid import Grid
    from foveate.eval.study import Study

    keeps = several("--keep", keep or KEEPS, parse_keep, KEEPS)
    first = next((entry.label for entry in entries if entry.preset == "snapkv"), "snapkv")
    names = tuple(task.name for task in tasks)
    study = Study("", "", names, entries, keeps, (), reference=first)
    return study, Grid(tasks, entries, keeps)


def of_study(name: str, chosen: dict[str, Any]) -> tuple[Any, Any]:
    """Return the study of that name and its grid, or raise for what it brings along."""
    from foveate.errors import InputError
    from foveate.eval.study import study

    found = study(name)
    for option, value in chosen.items():
        if value is not None:
            raise InputError(f"study {name} brings its own tasks and methods; leave out {option}")
    return found, found.grid()


def sized(grid: Any, number: int | None, seeds: str | None, everything: bool) -> Any:
    """Return the grid with as many samples and seeds as were asked for."""
    from foveate.cli.options import several
    from foveate.errors import InputError

    if seeds is not None:
        grid = replace(grid, seeds=several("--seeds", seeds, int, "1,2"))
        if everything and len(grid.seeds) > 1:
            raise InputError(
                "seeds of --data draw from the same rows, which would count more than once; give "
                "one seed"
            )
    if number is not None or everything:
        grid = replace(grid, number=number)
    return grid

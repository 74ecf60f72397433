"""The log of a run: lines of JSON, what they say, and whether they belong together."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foveate.errors import InputError
from foveate.eval.entry import FULL
from foveate.eval.record import VERSION, Cell, Record, Run

__all__ = ["FIXED", "Log", "check_same", "check_work", "content", "parsed", "read_log", "twice"]

FIXED = ("dtype", "attention", "storage", "quantized", "fidelity")  # settings answers depend on
_ADVICE = "give what it was begun with, or another file"


@dataclass(frozen=True)
class Log:
    """Who ran, in order, and the record of every answer; one for each sample of a cell."""

    runs: tuple[Run, ...]
    records: tuple[Record, ...]


def read_log(*paths: str | Path) -> Log:
    """Return what is in these logs together; one may still be growing.

    Where a failed sample was done again, the later record counts. Several logs may all hold the
    full cache, if it said the same. Raises `InputError` for what is no log, a log of another
    version, and logs that disagree about the model, a task or a method.
    """
    runs: list[Run] = []
    found: dict[tuple[Cell, str], Record] = {}
    for path in map(Path, paths):
        log, _ = parsed(path, content(path))
        if not log.runs:
            raise InputError(f"{path} is empty; give a log that `foveate eval` wrote")
        for run in log.runs:
            if runs:
                check_same(runs, run, path)
            runs.append(run)
        for record in log.records:
            known = found.setdefault((record.cell, record.sample), record)
            if known is not record and not _same_full(known, record):
                raise InputError(
                    f"{path}: sample {record.sample!r} of {_told(record.cell)} is in an earlier "
                    "log, too; give logs of different cells"
                )
    return Log(tuple(runs), tuple(found.values()))


def check_work(
    before: Sequence[Run],
    tasks: Mapping[str, str],
    methods: Mapping[str, str],
    settings: Mapping[str, Any],
    path: Path,
) -> None:
    """Raise `InputError` if a task, method or setting was another when answers were given."""
    if before:
        _check_settings(before[-1], settings, path)
    _check_named(before, {"tasks": tasks, "methods": methods}, path)


def _check_named(before: Sequence[Run], now: Mapping[str, Mapping[str, str]], path: Path) -> None:
    """Raise `InputError` if a task or method that has answers is another one now."""
    for kind, named in now.items():
        old = {name: told for run in before for name, told in getattr(run, kind).items()}
        for name, told in named.items():
            if old.get(name, told) != told:
                raise InputError(
                    f"{path}: begun when {name}, one of its {kind}, was {old[name]}, and now it is "
                    f"{told}; {_ADVICE}"
                )


def check_same(before: Sequence[Run], now: Run, path: Path) -> None:
    """Raise `InputError` if answers of these runs cannot stand in one table."""
    last = before[-1]
    if (last.model, last.revision) != (now.model, now.revision):
        raise InputError(
            f"{path}: begun with {last.model} ({last.revision}), and now it is {now.model} "
            f"({now.revision}); {_ADVICE}"
        )
    settings = dict.fromkeys(FIXED) | dict(now.settings)
    check_work(before, now.tasks, now.methods, settings, path)


def _check_settings(last: Run, now: Mapping[str, Any], path: Path) -> None:
    """Raise `InputError` if a setting that answers depend on is another one now."""
    for name in FIXED:
        old = last.settings.get(name)
        if name in now and now[name] != old:
            raise InputError(
                f"{path}: begun with {name} {old}, and now it is {now[name]}; {_ADVICE}"
            )


def parsed(path: Path, data: bytes) -> tuple[Log, int]:
    """Return the log, and how many bytes of the file are whole lines of it."""
    runs: list[Run] = []
    records: dict[tuple[Cell, str], Record] = {}
    end = 0
    if data and b"\n" not in data and not data.startswith(b'{"run"'):
        raise _foreign(path, 1, data)
    for number, line, last in _lines(data):
        try:
            value = json.loads(line)
            kind, fields = next(iter(value.items()))
        except (ValueError, AttributeError, StopIteration):
            if last and number > 1:
                break
            raise _foreign(path, number, line) from None
        one = _value(kind, fields, f"{path}, line {number}")
        end += len(line)
        if isinstance(one, Run):
            runs.append(one)
            continue
        known = records.get((one.cell, one.sample))
        if not runs or (known is not None and known.error is None):
            raise InputError(f"{path}, line {number}: {twice(one) if runs else 'no run began'}")
        records[one.cell, one.sample] = one
    return Log(tuple(runs), tuple(records.values())), end


def _lines(data: bytes) -> Iterator[tuple[int, bytes, bool]]:
    """Yield number and bytes of every whole line, and whether it is the last."""
    lines = data.split(b"\n")[:-1]
    for number, line in enumerate(lines, 1):
        yield number, line + b"\n", number == len(lines)


def _foreign(path: Path, number: int, line: bytes) -> InputError:
    begins = line[:40].decode(errors="replace")
    return InputError(
        f"{path} is no log of `foveate eval`: line {number} begins {begins!r}; give another file"
    )


def _value(kind: str, fields: Any, place: str) -> Run | Record:
    try:
        if kind == "run":
            if fields["version"] != VERSION:
                raise InputError(
                    f"{place}: a log of version {fields['version']}, and this Foveate reads and "
                    f"writes version {VERSION}; give another file with --out"
                )
            return Run(**fields)
        measures = {name: float(value) for name, value in fields["measures"].items()}
        return Record(**{**fields, "cell": Cell(**fields["cell"]), "measures": measures})
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{place} is no {kind} of `foveate eval`: {error}") from None


def _told(cell: Cell) -> str:
    return f"{cell.entry} at keep={cell.keep} on {cell.task}, seed {cell.seed}"


def twice(record: Record) -> str:
    """Return the complaint about a sample that a cell has already."""
    return f"sample {record.sample!r} of {_told(record.cell)} comes twice"


def _same_full(known: Record, record: Record) -> bool:
    told = [(one.prompt, one.said, one.score) for one in (known, record)]
    return record.cell.entry == FULL.label and told[0] == told[1]


def content(path: Path) -> bytes:
    """Return what is in a file."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"the log {path} cannot be read: {error.strerror or error}") from error

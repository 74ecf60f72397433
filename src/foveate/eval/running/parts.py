"""Logs of several processes beside the one they belong to, which takes them in."""

from __future__ import annotations

import glob
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from foveate.eval.log import check_same
from foveate.eval.record import Run
from foveate.eval.running.journal import Journal

__all__ = ["adopt", "part"]


def part(path: str | Path, rank: int) -> Path:
    """Return the file of a process that is not the first.

    >>> part("runs/eval/pages.jsonl", 3).name
    'pages.jsonl.part3'
    """
    return Path(f"{path}.part{rank}")


def adopt(journal: Journal, check: Callable[[Sequence[Run]], object] = lambda runs: None) -> None:
    """Write all that parts hold into the log, and remove them; what it has already is left out.

    `check` is called with the runs of the log and of all parts before anything is written, and
    raises for those that may not go on. A kill at any moment loses nothing: parts go only when the
    log has all of them on the disk.
    """
    files = _parts(journal.path)
    with ExitStack() as stack:
        parts = [stack.enter_context(Journal(file)) for file in files]
        runs = list(journal.runs)
        for found in parts:
            for run in found.runs:
                if runs:
                    check_same(runs, run, found.path)
                runs.append(run)
        check(runs)
        for found in parts:
            _take(journal, found)
    for file in files:
        file.unlink(missing_ok=True)


def _take(journal: Journal, found: Journal) -> None:
    for run in found.runs:
        if _who(run) not in map(_who, journal.runs):
            journal.begin(run)
    new = [record for key, record in found.records.items() if _is_new(journal, key, record)]
    journal.append(new)


def _parts(path: Path) -> list[Path]:
    """Return the parts of a log, and no copies of them that have other names."""
    found = path.parent.glob(f"{glob.escape(path.name)}.part*")
    return sorted(file for file in found if file.suffix.removeprefix(".part").isdecimal())


def _who(run: Run) -> tuple[Any, ...]:
    """Return what a run is told by; its processes differ in date and device."""
    settings = {name: value for name, value in run.settings.items() if name != "device"}
    return run.commit, run.versions, settings, run.tasks, run.methods


def _is_new(journal: Journal, key: Any, record: Any) -> bool:
    known = journal.records.get(key)
    return known is None or (known.error is not None and known != record)

"""Logs of several processes beside the one they belong to, which takes them in."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import Any

from foveate.eval.log import Journal, check_same
from foveate.eval.record import Run

__all__ = ["adopt", "part"]


def part(path: str | Path, rank: int) -> Path:
    """Return the file of a process that is not the first.

    >>> part("runs/eval/pages.jsonl", 3).name
    'pages.jsonl.part3'
    """
    return Path(f"{path}.part{rank}")


def adopt(journal: Journal) -> None:
    """Write all that parts hold into the log, and remove them; what it has already is left out.

    A kill at any moment loses nothing: a part goes only when the log has all of it on the disk.
    """
    path = journal.path
    for file in _parts(path):
        with Journal(file) as found:
            for run in found.runs:
                if journal.runs:
                    check_same(journal.runs, run, file)
                if _who(run) not in map(_who, journal.runs):
                    journal.begin(run)
            new = [record for key, record in found.records.items() if _is_new(journal, key, record)]
            journal.append(new)
        file.unlink(missing_ok=True)


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

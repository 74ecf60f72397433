"""The log that a run writes: lines that are only ever added, so that a restart loses nothing."""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from foveate.errors import FoveateError, InputError
from foveate.eval.log import Log, check_same, content, parsed, twice
from foveate.eval.record import Cell, Record, Run

__all__ = ["Journal"]

UNLOCKED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # of disks that know no locks


class Journal:
    """A log that is open for more records, and closed to everybody else who would write.

    `out` is what a command calls it, if that is another file: the one that a part belongs to.
    What a crash left of a last line is cut off. Raises `InputError` if another run writes to the
    same file, or if the file is no log of this version.
    """

    def __init__(self, path: str | Path, out: str | Path | None = None) -> None:
        self.path, self._out = Path(path), out or path
        self._file = _opened(self.path)
        try:
            _lock(self._file, self.path)
            log, self._end = parsed(self.path, content(self.path))
            self._file.truncate(self._end)
        except BaseException:
            self._file.close()
            raise
        self.runs = list(log.runs)
        self.records = {(record.cell, record.sample): record for record in log.records}

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._end == 0:  # nothing began
            self.path.unlink(missing_ok=True)
        self._file.close()

    @property
    def log(self) -> Log:
        """Return what the file holds."""
        return Log(tuple(self.runs), tuple(self.records.values()))

    def begin(self, run: Run) -> None:
        """Write down who goes on; raises `InputError` if that would not be the same experiment."""
        if self.runs:
            check_same(self.runs, run, self.path)
        self._add([{"run": asdict(run)}])
        self.runs.append(run)

    def append(self, records: Sequence[Record]) -> None:
        """Write records down for good: they are on the disk when this returns, or none is."""
        new: dict[tuple[Cell, str], Record] = {}
        for record in records:
            key = (record.cell, record.sample)
            known = self.records.get(key)
            if key in new or (known is not None and known.error is None):
                raise InputError(f"{twice(record)}; names of samples must differ within a task")
            new[key] = record
        self._add([{"record": _plain(asdict(record))} for record in records])
        self.records |= new

    def _add(self, lines: Iterable[Mapping[str, Any]]) -> None:
        data = "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines).encode()
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
            os.fsync(self._file.fileno())
        except BaseException as error:
            self._file.truncate(self._end)
            if isinstance(error, OSError):
                raise self._not_written(error) from error
            raise
        self._end += len(data)

    def _not_written(self, error: OSError) -> FoveateError:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        what = "the disk is full" if full else f"it cannot be written to: {error.strerror or error}"
        cure = "make room" if full else "mend that"
        return FoveateError(
            f"{self.path}: {what}; what is in it, {len(self.records)} answers, is safe; {cure}, "
            f"then give the same command with --out {self._out}"
        )


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields with measures that JSON has no number for, such as inf, as words."""
    measures = {
        name: value if math.isfinite(value) else str(value)
        for name, value in fields["measures"].items()
    }
    return {**fields, "measures": measures}


def _opened(path: Path) -> IO[bytes]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise OSError(errno.EINVAL, "it is no regular file")
        return open(path, "ab", buffering=0)
    except OSError as error:
        raise InputError(
            f"--out {path} cannot be written to: {error.strerror or error}; give a file in a "
            "folder of yours"
        ) from error


def _lock(file: IO[bytes], path: Path) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(
            f"another run is writing to {path}; wait for it, or give another file with --out"
        ) from None
    except OSError as error:
        if error.errno not in UNLOCKED:
            raise

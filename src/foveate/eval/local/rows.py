"""Rows of JSON, JSON lines or Parquet, whatever is in them."""

from __future__ import annotations

import bisect
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, overload

from foveate.errors import InputError, MissingExtra
from foveate.eval.local import milebench

__all__ = ["KINDS", "Row", "Rows", "columns", "digest", "find", "read"]

Row = Mapping[str, Any]
Rows = Sequence[Row]
KINDS = (".json", ".jsonl", ".parquet")
SHARD = re.compile(r"(.*)-\d+-of-\d+\.parquet")


def find(path: Path) -> tuple[Path, ...]:
    """Return the table at that path, or in that folder; it may be in several Parquet files.

    The path of those is what their names begin with: `data/validation`.
    """
    if path.is_file():
        if path.suffix.lower() not in KINDS:
            raise InputError(
                f"{path} is no table that is known; give a file that ends in {', '.join(KINDS)}, "
                "or a folder that holds one"
            )
        return (path,)
    if not path.is_dir():
        shards = tuple(file for file in _tables(path.parent) if _name(file) == path.name)
        if not shards:
            raise InputError(f"there is no file or folder {path}; give one with questions in it")
        return shards
    found = _tables(path)
    if not found:
        raise InputError(
            f"folder {path} holds no table; put one beside the images, a file that ends in "
            f"{', '.join(KINDS)}"
        )
    names = list(dict.fromkeys(map(_name, found)))
    if len(names) > 1:
        raise InputError(
            f"folder {path} holds several tables ({', '.join(names)}); give one of them: "
            f"{path / names[0]}"
        )
    return found


def _tables(folder: Path) -> tuple[Path, ...]:
    files = folder.iterdir() if folder.is_dir() else ()
    return tuple(sorted(file for file in files if file.suffix.lower() in KINDS))


def _name(file: Path) -> str:
    """Return what a table is called, which may be in several files."""
    shard = SHARD.fullmatch(file.name)
    return shard[1] if shard else file.name


def digest(files: Iterable[Path]) -> str:
    """Return a short digest of what is in the files."""
    found = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:
            while piece := opened.read(1 << 20):
                found.update(piece)
    return found.hexdigest()[:16]


def read(files: Sequence[Path], is_milebench: bool = False) -> Rows:
    """Return the rows of the table."""
    if files[0].suffix.lower() == ".parquet":
        rows: Rows = Parquet(files)
    elif files[0].suffix.lower() == ".jsonl":
        rows = _lines(files[0])
    else:
        rows = _document(files[0], is_milebench)
    if not rows:
        raise InputError(f"{files[0]} has no rows; give a table with one at least")
    return rows


def columns(rows: Rows) -> list[str]:
    """Return the names of all columns, in the order they come."""
    if isinstance(rows, Parquet):
        return rows.columns
    return list(dict.fromkeys(name for row in rows for name in row))


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not UTF-8 ({error}); save it as UTF-8") from error


def _lines(file: Path) -> Rows:
    rows: list[Row] = []
    for number, line in enumerate(_text(file).split("\n"), 1):
        if line.strip():
            row = _parsed(line, f"{file}, line {number}")
            if not isinstance(row, dict):
                raise InputError(f"{file}, line {number}: no object of columns; write {{...}}")
            rows.append(row)
    return rows


def _document(file: Path, is_milebench: bool) -> Rows:
    text = _text(file)
    found = _parsed(text, str(file)) if text.strip() else []
    if is_milebench:
        return milebench.rows(found, file)
    if isinstance(found, dict):
        found = found.get("data")
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise InputError(
            f"{file} holds no list of objects; write [{{...}}, {{...}}], or put such a list under "
            '"data"'
        )
    return found


def _parsed(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = "" if "line" in place else f", line {error.lineno}"
        raise InputError(
            f"{place}{line}, column {error.colno}: {error.msg}; this is not JSON"
        ) from error


class Parquet(Sequence[Row]):
    """Rows of Parquet files, of which one group at a time is in memory."""

    def __init__(self, files: Sequence[Path]) -> None:
        try:
            from pyarrow import ArrowInvalid
            from pyarrow.parquet import ParquetFile
        except ImportError as error:
            raise MissingExtra(
                "Parquet needs the package pyarrow; pip install 'foveate[eval]'"
            ) from error
        self._groups: list[tuple[Any, int]] = []
        for file in files:
            try:
                opened = ParquetFile(file, memory_map=True)
            except (ArrowInvalid, OSError) as error:
                raise InputError(f"{file} cannot be read as Parquet: {error}") from error
            self._groups += [(opened, number) for number in range(opened.num_row_groups)]
            self.columns = list(opened.schema_arrow.names)
        sizes = [file.metadata.row_group(number).num_rows for file, number in self._groups]
        self._ends = list(accumulate(sizes))
        self._held: tuple[int, Any] = (-1, None)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        group = bisect.bisect_right(self._ends, index)
        if self._held[0] != group:
            file, number = self._groups[group]
            self._held = (group, file.read_row_group(number))
        table = self._held[1]
        return table.slice(index - self._ends[group] + table.num_rows, 1).to_pylist()[0]

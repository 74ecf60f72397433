"""Tables that are measured once per model: written whole or not at all, checked when they are read.

A table is a JSON file: `format` says the kind, `version` is 1, then the model's name and shape, the
numbers under the name of their kind (`scores`, `redundancy` or `shares`), and how they were made.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from foveate.errors import InputError, MethodError

__all__ = ["KINDS", "Kind", "Table", "load_table", "save_table"]

VERSION = 1
Kind = Literal["heads", "redundancy", "sizes"]
Rows = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Contents:
    """What a kind of table holds: its numbers' name and range, and the command that makes it."""

    field: str
    low: float
    high: float
    command: str

    def width(self, query_heads: int, kv_heads: int) -> int:
        """Return how many numbers a layer has."""
        return {"scores": query_heads, "redundancy": kv_heads, "shares": 1}[self.field]


KINDS: dict[str, Contents] = {
    "heads": Contents("scores", 0.0, 1e30, "foveate heads"),
    "redundancy": Contents("redundancy", -1.0, 1.0, "foveate calibrate redundancy"),
    "sizes": Contents("shares", 0.0, 1.0, "foveate calibrate sizes"),
}


@dataclass(frozen=True)
class Table:
    """The numbers of a model's layers: per query head, per key-value head, or one per layer.

    `layers` counts all decoder layers; those without a cache that can be compressed have zeros, or
    share 1. `keep` is what sizes were measured at.
    """

    kind: Kind
    model: str
    layers: int
    query_heads: int
    kv_heads: int
    values: Rows
    keep: float | int | None = None

    @property
    def per_layer(self) -> tuple[float, ...]:
        """Return the sum of each layer's numbers; of sizes, the kept share of each layer."""
        return tuple(math.fsum(row) for row in self.values)

    @property
    def per_kv_head(self) -> Rows:
        """Return one number per layer and key-value head, scores summed over the group."""
        if self.kind == "sizes":
            return tuple(row * self.kv_heads for row in self.values)
        group = len(self.values[0]) // self.kv_heads
        return tuple(
            tuple(math.fsum(row[i : i + group]) for i in range(0, len(row), group))
            for row in self.values
        )

    def check(self, model_name: str | None, layers: int, query_heads: int, kv_heads: int) -> None:
        """Raise `MethodError` for a table of another model; without a name, by shape alone."""
        mine = (self.layers, self.query_heads, self.kv_heads)
        wanted = (layers, query_heads, kv_heads)
        again = f"make one for this model with `{KINDS[self.kind].command}`"
        if mine != wanted:
            raise MethodError(
                f"the {self.kind} table of {self.model} has (layers, query heads, KV heads) = "
                f"{mine}, and this model {wanted}; {again}"
            )
        if model_name and _last(model_name) != _last(self.model):
            raise MethodError(
                f"the {self.kind} table is of {self.model}, and this model is {model_name}; {again}"
            )


def load_table(path: str | os.PathLike[str], kind: Kind) -> Table:
    """Return the table in a file; raise `MethodError` if it is missing, damaged or another kind."""
    if kind not in KINDS:
        raise MethodError(f"there are no {kind!r} tables; give one of {', '.join(KINDS)}")
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        command = KINDS[kind].command
        raise MethodError(
            f"the {kind} table {os.fspath(path)!r} cannot be read: {reason}; give a file that "
            f"`{command}` wrote"
        ) from error
    try:
        return _table(json.loads(text), kind)
    except (ValueError, RecursionError) as error:
        wrong = error if isinstance(error, MethodError) else f"it is not JSON ({error})"
        raise MethodError(
            f"the {kind} table {os.fspath(path)!r} cannot be used: {wrong}; make it again with "
            f"`{KINDS[kind].command}`"
        ) from error


def save_table(path: str | os.PathLike[str], content: dict[str, Any]) -> None:
    """Write a table that `load_table` will read, or raise and leave what was there."""
    place = Path(path)
    _table(content, content["format"].removeprefix("foveate-"))
    beside = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        beside.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        beside.replace(place)
    except OSError as error:
        raise InputError(
            f"{place} cannot be written: {error.strerror or error}; give a file in a folder that "
            "exists and that you may write to"
        ) from error
    finally:
        beside.unlink(missing_ok=True)


def _table(content: Any, kind: Kind) -> Table:
    if not isinstance(content, dict):
        raise MethodError(f"it holds a {type(content).__name__} where an object belongs")
    found = (content.get("format"), content.get("version"))
    if found != (f"foveate-{kind}", VERSION):
        raise MethodError(
            f"its format is {found[0]!r}, version {found[1]!r}; 'foveate-{kind}', version "
            f"{VERSION}, is read"
        )
    name = content.get("model")
    if not isinstance(name, str) or not name:
        raise MethodError(f"its model is {name!r}; a name is allowed")
    layers, query_heads, kv_heads = (
        _count(content, field) for field in ("layers", "query_heads", "kv_heads")
    )
    if query_heads % kv_heads:
        raise MethodError(f"{query_heads} query heads do not divide into {kv_heads} KV heads")
    values = _values(content, KINDS[kind], layers, query_heads, kv_heads)
    keep = content.get("keep")
    if keep is not None and not (_is_number(keep) and keep > 0):
        raise MethodError(f"its keep is {keep!r}; a share or a number of tokens is allowed")
    return Table(kind, name, layers, query_heads, kv_heads, values, keep)


def _values(
    content: dict[str, Any], wanted: Contents, layers: int, query_heads: int, kv_heads: int
) -> Rows:
    field, width = wanted.field, wanted.width(query_heads, kv_heads)
    given = content.get(field)
    listed = given if isinstance(given, list) else []
    rows = [row if isinstance(row, list) else [row] for row in listed]
    shape = [len(row) for row in rows]
    if len(shape) != layers or any(count != width for count in shape):
        raise MethodError(
            f"{field} has rows of {sorted(set(shape)) or 'no'} numbers for {len(shape)} layers; "
            f"{width} for each of {layers} belong there"
        )
    for layer, row in enumerate(rows):
        for value in row:
            if not _is_number(value) or not wanted.low <= value <= wanted.high:
                raise MethodError(
                    f"{field} of layer {layer} holds {value!r}; numbers from {wanted.low:g} to "
                    f"{wanted.high:g} are allowed"
                )
    values = tuple(tuple(float(value) for value in row) for row in rows)
    if not any(any(row) for row in values):
        raise MethodError(f"all {field} are zero; at least one above zero belongs there")
    return values


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < math.inf  # as JSON has them


def _count(content: dict[str, Any], field: str) -> int:
    value = content.get(field)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise MethodError(f"its {field} is {value!r}; a whole number, 1 or more, is allowed")
    return value


def _last(name: str) -> str:
    """Return the last part of a model's id or folder, as names are compared."""
    return name.rstrip("/").rpartition("/")[2].casefold()

"""Rows of a table as samples; every row is looked through before the first question is asked."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, overload

from foveate.errors import InputError
from foveate.eval.local import pictures, rows
from foveate.eval.task import Message, Metric, Part, Sample

__all__ = ["Columns", "Local", "arranged"]

PLACE = re.compile(r"<ImageHere>|<image>|\{(?:image|table)#\d+\}")
SIZES = ("image_width", "image_height")


@dataclass(frozen=True)
class Columns:
    """The columns that are read; None for what the prompt or the metric does without."""

    image: str | None
    question: str | None
    answer: str | None = None
    box: str | None = None
    options: str | None = None


@dataclass(frozen=True)
class Local:
    """The table of one or more files, `digest` being that of what is in them."""

    files: tuple[Path, ...] = field(repr=False, compare=False)
    name: str
    digest: str
    columns: Columns
    prompt: str
    metric: Metric
    is_milebench: bool
    is_capitalised: bool
    _sound: set[int] = field(default_factory=set, repr=False, compare=False)

    def samples(self, number: int | None, seed: int) -> Sequence[Sample]:
        """Return so many samples; seed 0 takes rows in their order, other seeds shuffle them.

        Raises `InputError` for a row that cannot be asked or judged, its images included.
        """
        order = list(range(len(self._rows)))
        if seed:
            random.Random(seed).shuffle(order)
        chosen = order[:number]
        for index in chosen:
            if index not in self._sound:
                self.sample(index, is_checked=True)
                self._sound.add(index)
        return _Chosen(self, tuple(chosen))

    def __getstate__(self) -> dict[str, Any]:
        return {part.name: getattr(self, part.name) for part in fields(self)}  # no rows

    @cached_property
    def _rows(self) -> Sequence[rows.Row]:
        return rows.read(self.files, self.is_milebench)

    def sample(self, index: int, is_checked: bool = False) -> Sample:
        """Return the sample of a row; `is_checked` opens all its images."""
        try:
            return self._sample(index, self._rows[index], is_checked)
        except InputError as error:
            raise InputError(f"{self.name}, row {index + 1}: {error}") from error

    def _sample(self, index: int, row: rows.Row, is_checked: bool) -> Sample:
        columns = self.columns
        cell = _value(row, columns.image)
        found = [pictures.place(image, self.files[0].parent) for image in pictures.listed(cell)]
        facts = {name: value for name, value in row.items() if _is_fact(name, value, columns)}
        if columns.options is not None:
            facts["options"] = _texts(row, columns.options)
        if columns.box is not None:
            facts |= _box(row, columns.box, found)
        images = [_part(file, is_checked) for file in found]
        answers = () if columns.answer is None else _texts(row, columns.answer)
        asked = Message("user", arranged(self._text(row), images))
        sample = Sample(str(index + 1), ((asked,),), answers, facts)
        lack = self.metric.fault(sample)
        if lack is not None:
            raise InputError(f"{lack}; correct the row, take it out, or use another metric")
        return sample

    def _text(self, row: rows.Row) -> str:
        if self.columns.question is None:
            return self.prompt
        question = _value(row, self.columns.question)
        if not isinstance(question, str | int | float):
            raise InputError(f"column {self.columns.question} holds {question!r}; give a text")
        text = str(question).capitalize() if self.is_capitalised else str(question)
        return self.prompt.replace("{question}", text)


class _Chosen(Sequence[Sample]):
    """Samples made when they are asked for, so that no two images need be in memory at once."""

    def __init__(self, source: Local, indices: tuple[int, ...]) -> None:
        self._source, self._indices = source, indices

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if isinstance(index, slice):
            return [self._source.sample(one) for one in self._indices[index]]
        return self._source.sample(self._indices[index])


def _value(row: rows.Row, column: str | None) -> Any:
    """The value of a column that every row must have."""
    value = None if column is None else row.get(column)
    if value is None or value == "" or _is_nan(value):
        raise InputError(
            f"column {column} has no value (columns are {', '.join(row)}); fill it in, or take the "
            "row out"
        )
    return value


def _texts(row: rows.Row, column: str) -> tuple[str, ...]:
    value = row.get(column)
    listed = value if isinstance(value, list | tuple) else [value]
    if value is None or any(map(_is_nan, listed)):
        raise InputError(
            f"column {column} has no value, so nothing can be scored (test splits often have "
            "none); use a split with answers, or take the row out"
        )
    for text in listed:
        if not isinstance(text, str | int | float):
            raise InputError(
                f"column {column} holds {text!r}; give a text or a number, or a list of those"
            )
    return tuple(str(text) for text in listed)


def _is_nan(value: Any) -> bool:
    """Whether it is what data frames write where there is nothing."""
    return isinstance(value, float) and value != value


def _is_fact(name: str, value: Any, columns: Columns) -> bool:
    """Whether a column is a plain value that reports may want, and nothing that is read anyhow."""
    used = [getattr(columns, part.name) for part in fields(columns)]
    return name not in used and isinstance(value, str | int | float)


def _part(file: Path | bytes, is_checked: bool) -> Part:
    """The file itself, opened on the way if that is asked, or the picture that bytes are."""
    if isinstance(file, Path) and not is_checked:
        return file
    picture = pictures.opened(file)
    return file if isinstance(file, Path) else picture


def _box(row: Mapping[str, Any], column: str, found: Sequence[Path | bytes]) -> dict[str, Any]:
    """The box, and the size of the screen, which is that of the first picture unless it is told."""
    if all(isinstance(row.get(side), int | float) for side in SIZES):
        width, height = (row[side] for side in SIZES)
    else:
        width, height = pictures.opened(found[0]).size
    return {"bbox": row.get(column), "width": width, "height": height}


def arranged(text: str, images: Sequence[Part]) -> tuple[Part, ...]:
    """Return text and images, these in the text's places for them, or before it if it has none."""
    texts = PLACE.split(text)
    if len(texts) - 1 > len(images):
        raise InputError(
            f"its text has {len(texts) - 1} places for images, and there are {len(images)}; give "
            "as many images"
        )
    first = len(images) - (len(texts) - 1)
    parts: list[Part] = [*images[:first], texts[0]]
    for image, piece in zip(images[first:], texts[1:], strict=True):
        parts += [image, piece]
    return tuple(part for part in parts if part != "")

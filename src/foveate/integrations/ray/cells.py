"""The cells of one row as a sample: its images opened, its question put into the prompt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from foveate.cli.images import ready
from foveate.errors import InputError
from foveate.eval.local import pictures
from foveate.eval.local.source import arranged
from foveate.eval.task import Message, Sample

__all__ = ["Reader"]

SHAPES = "height x width, or height x width x 1, 3 or 4, of dtype uint8"


@dataclass(frozen=True)
class Reader:
    """Which columns are read, how a row is asked, and where paths begin."""

    image: str
    question: str
    prompt: str
    folder: Path

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the columns that must be there."""
        return (self.image, self.question) if self._is_asked else (self.image,)

    @property
    def _is_asked(self) -> bool:
        return "{question}" in self.prompt

    def sample(self, name: str, row: Mapping[str, Any]) -> Sample:
        """Return the row as a sample; raises `InputError` for a row that cannot be asked."""
        images = [_opened(image, self.folder) for image in _listed(row[self.image])]
        text = self.prompt
        if self._is_asked:
            text = text.replace("{question}", _text(row[self.question], self.question))
        return Sample(name, ((Message("user", arranged(text, images)),),), ())


def _listed(cell: Any) -> list[Any]:
    """Return the images of a cell; arrays are lists, stacks of pictures, or one picture."""
    if not isinstance(cell, np.ndarray):
        return pictures.listed(cell)
    if cell.dtype == object or cell.ndim > 3:
        return pictures.listed(list(cell))
    return [cell]


def _opened(image: Any, folder: Path) -> Image.Image:
    if isinstance(image, Image.Image):
        return ready(image, "an image")
    if isinstance(image, np.ndarray):
        return ready(_from_array(image), "an array")
    if isinstance(image, bytearray | memoryview):
        image = bytes(image)
    elif isinstance(image, Path):
        image = str(image)
    return pictures.opened(pictures.place(image, folder))


def _from_array(array: np.ndarray[Any, Any]) -> Image.Image:
    shape = " x ".join(map(str, array.shape))
    wide = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4))
    if array.dtype != np.uint8 or not wide or array.size == 0:
        raise InputError(f"its image is an array of {shape}, {array.dtype}; give {SHAPES}")
    return Image.fromarray(array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array)


def _text(value: Any, column: str) -> str:
    """Return what is asked, if anything is."""
    is_nan = isinstance(value, float) and value != value
    if value is None or is_nan or (isinstance(value, str) and not value.strip()):
        raise InputError(f"column {column} is empty; give a question, or take the row out")
    if not isinstance(value, str | int | float | np.integer):
        raise InputError(f"column {column} holds {type(value).__name__}; give a text")
    return str(value)

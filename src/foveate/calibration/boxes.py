"""Boxes on a picture turned into positions of a prompt: which visual token shows which part."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from foveate.errors import InputError

__all__ = ["Box", "Cells", "Stated", "region"]

Box = tuple[float, float, float, float]  # two corner points, in pixels: left, top, right, bottom
Cells = tuple[tuple[int, ...], ...]  # prompt positions of the visual tokens, row by row
_STATED = re.compile(r"(\d+)x(\d+)(?:\+(\d+))?(?:@(-?\d+))?")


@dataclass(frozen=True)
class Stated:
    """A grid that the user states: its place among a picture's visual tokens.

    `gap` tokens follow every row, and `start` is the first token, counted from the end if negative.
    """

    rows: int
    columns: int
    gap: int = 0
    start: int = 0

    @staticmethod
    def parse(text: str) -> Stated:
        """Return the grid of words such as 24x24, 24x24+1@576 or 16x16@-256.

        >>> Stated.parse("24x32+1@576")
        Stated(rows=24, columns=32, gap=1, start=576)
        """
        match = _STATED.fullmatch(text.strip())
        if match is None or not int(match[1]) or not int(match[2]):
            raise InputError(
                f"--grid {text!r} is not a grid; give rows x columns of visual tokens such as "
                "24x24, with +1 for a token at the end of each row and @576 for the first one's "
                "number"
            )
        return Stated(int(match[1]), int(match[2]), int(match[3] or 0), int(match[4] or 0))

    def cells(self, visual: Sequence[int]) -> Cells:
        """Return the grid's positions among those of a picture's visual tokens."""
        stride = self.columns + self.gap
        first = self.start if self.start >= 0 else len(visual) + self.start
        last = first + (self.rows - 1) * stride + self.columns
        if first < 0 or last > len(visual):
            raise InputError(
                f"--grid states {self.rows}x{self.columns} tokens from number {first} to {last}, "
                f"and the picture has {len(visual)}; state the grid of this model's pictures"
            )
        starts = range(first, first + self.rows * stride, stride)
        return tuple(tuple(visual[at : at + self.columns]) for at in starts)


def region(cells: Cells, size: tuple[int, int], box: Box) -> tuple[int, ...]:
    """Return the positions of the tokens that a box touches, on a picture of (width, height).

    Both corner points belong to the box.

    >>> region(((10, 11), (12, 13)), (8, 8), (0, 0, 3, 7))
    (10, 12)
    """
    columns = _span(box[0], box[2], size[0], len(cells[0]))
    rows = _span(box[1], box[3], size[1], len(cells))
    return tuple(cells[row][column] for row in rows for column in columns)


def _span(low: float, high: float, pixels: int, cells: int) -> range:
    """Return the cells from one pixel to another, of `cells` that share `pixels` evenly."""
    first, last = (min(max(int(at * cells // pixels), 0), cells - 1) for at in (low, high))
    return range(first, last + 1)

"""What a family makes of one picture: how many tokens it has, and which of them form grids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from foveate.errors import InputError
from foveate.picture import Picture, View


@dataclass(frozen=True)
class Shape:
    """A picture whose views hold numbers of its own visual tokens instead of prompt positions."""

    tokens: int
    views: tuple[View, ...]
    size: tuple[int, int] | None = None  # (width, height) before processing, where the model knows
    video: bool = False

    def placed(self, positions: Sequence[int], size: tuple[int, int] | None) -> Picture:
        """Return the picture with its tokens at these positions, and its size if that is known."""
        views = (
            replace(
                view,
                positions=tuple(
                    tuple(-1 if n < 0 else positions[n] for n in row) for row in view.positions
                ),
            )
            for view in self.views
        )
        return Picture(tuple(views), size or self.size, self.video)


def grid(rows: int, columns: int, start: int = 0, gap: int = 0) -> tuple[tuple[int, ...], ...]:
    """Return the numbers of a grid's tokens: row by row from `start`, `gap` tokens behind each row.

    >>> grid(2, 3, start=4, gap=1)
    ((4, 5, 6), (8, 9, 10))
    """
    return tuple(
        tuple(start + row * (columns + gap) + column for column in range(columns))
        for row in range(rows)
    )


def dealt(shapes: Sequence[Shape], rows: Sequence[int], what: str) -> list[list[Shape]]:
    """Return the shapes of every row, rows having so many tokens; `what` names where they came."""
    found: list[list[Shape]] = []
    left = list(shapes)
    for tokens in rows:
        mine: list[Shape] = []
        while left and sum(shape.tokens for shape in mine) < tokens:
            mine.append(left.pop(0))
        found.append(mine)
    given = [sum(shape.tokens for shape in mine) for mine in found]
    if left or given != list(rows):
        raise InputError(
            f"{what} states pictures of {', '.join(str(x.tokens) for x in shapes)} tokens, and the "
            f"rows of the prompt have {', '.join(map(str, rows))} placeholders; give what the "
            "processor returned, unchanged"
        )
    return found

"""Where visual tokens lie on a picture: grids of prompt positions over boxes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Box", "Picture", "View"]

Box = tuple[float, float, float, float]  # left, top, right, bottom in shares of the picture
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True)
class View:
    """A grid of visual tokens over a part of one picture, or of one moment of a video.

    `positions` are the prompt's, padding included, row by row from the top left; -1 where the grid
    has no token. `box` reaches beyond 0..1 where the processor added a border. `frames` are the
    first and the last of the sampled frames that the view shows, counted from 0, and `seconds` when
    they begin and end, both only for videos and where they are known.
    """

    name: str
    positions: tuple[tuple[int, ...], ...]
    box: Box = WHOLE
    frames: tuple[int, int] | None = None
    seconds: tuple[float, float] | None = None

    @property
    def rows(self) -> int:
        """Return how many rows the grid has."""
        return len(self.positions)

    @property
    def columns(self) -> int:
        """Return how many columns the grid has."""
        return len(self.positions[0])

    def cell(self, row: int, column: int) -> Box:
        """Return the part of the picture that one token of the grid stands for.

        >>> View("whole", ((7, 8), (9, 10))).cell(1, 0)
        (0.0, 0.5, 0.5, 1.0)
        """
        left, top, right, bottom = self.box
        width, height = (right - left) / self.columns, (bottom - top) / self.rows
        return (
            left + column * width,
            top + row * height,
            left + (column + 1) * width,
            top + (row + 1) * height,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the view as plain numbers, lists and strings."""
        return {
            "name": self.name,
            "positions": [list(row) for row in self.positions],
            "box": list(self.box),
            "frames": None if self.frames is None else list(self.frames),
            "seconds": None if self.seconds is None else list(self.seconds),
        }


@dataclass(frozen=True)
class Picture:
    """One picture or video of a prompt: its views, in the order of their tokens.

    `size` is (width, height) before processing. Where it is None and the processor cuts a part out
    or adds a border, boxes are shares of what the model was shown.
    """

    views: tuple[View, ...]
    size: tuple[int, int] | None = None
    video: bool = False

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Picture:
        """Return the picture that `to_dict` described."""

        def pair(value: Any) -> Any:
            return None if value is None else tuple(value)

        views = tuple(
            View(
                name=view["name"],
                positions=tuple(tuple(row) for row in view["positions"]),
                box=tuple(view["box"]),
                frames=pair(view["frames"]),
                seconds=pair(view["seconds"]),
            )
            for view in values["views"]
        )
        return Picture(views, pair(values["size"]), values["video"])

    def to_dict(self) -> dict[str, Any]:
        """Return the picture as plain numbers, lists and strings."""
        return {
            "size": None if self.size is None else list(self.size),
            "video": self.video,
            "views": [view.to_dict() for view in self.views],
        }

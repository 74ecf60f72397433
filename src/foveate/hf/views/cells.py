"""The finest grid of a prompt's only picture, which calibration compares with words on a page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from foveate.calibration.boxes import Cells, Stated
from foveate.errors import InputError
from foveate.hf.views import Picture, View, pictures
from foveate.hf.views.prompt import Prompts

__all__ = ["picture_cells"]

HINT = (
    "state the grid with --grid ROWSxCOLUMNS, such as --grid 16x16@-256 for a view of the whole "
    "picture in the last 256 visual tokens"
)


def picture_cells(
    config: Any,
    inputs: Mapping[str, Any],
    size: tuple[int, int],
    *,
    stated: Stated | None = None,
    processor: Any = None,
) -> Cells:
    """Return the prompt positions of the tokens of the prompt's only picture, as its rows.

    `size` is the picture's width and height before processing; `processor` is the image processor.
    Raises `InputError` where the places cannot be known, or are not of the whole picture.
    """
    visual = Prompts.of(config, inputs).images[0]
    if not visual:
        raise InputError(
            "the prompt has none of the picture's placeholders that the model's config names; this "
            "model's visual tokens cannot be placed"
        )
    if stated is not None:
        return stated.cells(visual)
    try:
        (picture,) = pictures(config, inputs, [size], processor=processor)
    except InputError as error:
        raise InputError(f"{error}; or {HINT}") from error
    return _finest(picture, size)


def _finest(picture: Picture, size: tuple[int, int]) -> Cells:
    """Return the tiles of a picture beside each other, or else its last view."""
    tiles = [view for view in picture.views if view.name.startswith("tile")]
    shown = tiles or [picture.views[-1]]
    _check_whole(shown, size)
    lines: dict[float, list[View]] = {}
    for view in shown:
        lines.setdefault(view.box[1], []).append(view)
    return tuple(
        tuple(at for view in line for at in view.positions[row])
        for line in lines.values()
        for row in range(line[0].rows)
    )


def _check_whole(shown: list[View], size: tuple[int, int]) -> None:
    """Raise `InputError` if a picture was cut or got a border; a detailed view may by one token."""
    left, top, right, bottom = shown[0].cell(0, 0)
    allowed = 1.0 if shown[0].name == "detail" else 0.0
    if abs(left) > allowed * (right - left) or abs(top) > allowed * (bottom - top):
        raise InputError(
            "the processor cuts pictures to a square or adds a border, and this one has "
            f"{size[0]} x {size[1]} pixels; give square pictures"
        )

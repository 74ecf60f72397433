"""Kept patches on their pictures, as one PNG: for notebooks, with nothing but Pillow."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from foveate.cache.report import CacheReport
from foveate.errors import InputError
from foveate.picture import Picture, View
from foveate.report.places import sheets

__all__ = ["Overlay", "overlay"]

PAPER, INK, MARK = (255, 255, 255), (22, 25, 28), (10, 106, 102)
GREY = (104, 112, 116)  # of what is kept, where there is no picture
PATCH = 24  # pixels of a row of tokens, within
LOW, HIGH = 448, 1024  # those of a panel
WIDTH, GAP = 1792, 12  # most pixels of a line of panels, and between two
FADED, LEAST = 0.44, 0.45  # how much is left of what nobody keeps, and how clear the least kept is


@dataclass(frozen=True, eq=False)
class Overlay:
    """What a report keeps, as a picture; a notebook shows it by itself."""

    image: Image.Image
    told: str

    def save(self, path: str | Path) -> None:
        """Write the picture to a file, in the form that its name ends with."""
        self.image.save(path)

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.image.save(file, "PNG")
        return file.getvalue()

    def __repr__(self) -> str:
        return f"<{self.told}, {self.image.width} x {self.image.height} pixels>"


def overlay(
    report: CacheReport,
    images: Sequence[Image.Image] | None = None,
    *,
    layer: int | None = None,
    head: int | None = None,
    row: int = 0,
    processor: Any = None,
) -> Overlay:
    """Return one row's kept patches on its pictures, or on grey where no pictures are given.

    Patches are as clear as the share of layers and heads that keep them, all or the given ones;
    lines are around what at least half of them keep. Raises `InputError` where places are unknown.
    """
    given = None if images is None else [image.convert("RGB") for image in images]
    sizes = None if given is None else [image.size for image in given]
    pictures = report.pictures(row, sizes, processor)
    if not pictures:
        raise InputError(f"row {row} of the prompt has no pictures; there is nothing to show")
    last = max(
        at for one in pictures for view in one.views for line in view.positions for at in line
    )
    shares = kept_shares(report, last + 1, layer, head, row)
    panels = []
    left = iter(given or ())
    for picture in pictures:
        image = None if picture.video else next(left, None)
        panels += [_panel(picture, group, image, shares) for group in sheets(picture)]
    told = f"{len(pictures)} picture{'s' if len(pictures) > 1 else ''} with what is kept"
    return Overlay(_laid(panels), told)


def kept_shares(
    report: CacheReport, length: int, layer: int | None, head: int | None, row: int
) -> np.ndarray:
    """Return for each prompt position the share of layers and heads that keep it."""
    if head is not None and not 0 <= head < report.heads and report.heads > 1:
        raise InputError(f"head {head} came, and there are {report.heads}; counted from 0")
    layers = [one.layer for one in report.layers] if layer is None else [layer]
    heads = range(report.heads) if head is None else [head]
    found = np.zeros(length)
    for index in layers:
        for one in heads:
            positions: Tensor = report.kept(index, row, one)
            found[positions[positions < length].numpy()] += 1
    return found / (len(layers) * len(heads))


def _panel(
    picture: Picture, views: Sequence[View], image: Image.Image | None, shares: np.ndarray
) -> Image.Image:
    """Return one sheet of a picture: clear where it is kept, faded and hatched elsewhere."""
    width, height = _size(picture, views, image)
    blurred, clear = _ground(views, image, (width, height))
    alpha = np.zeros((height, width, 1))
    cells = [cell for view in views for cell in _cells(view, width, height)]
    for (left, top, right, bottom), position in cells:
        share = shares[position]
        if share > 0:
            rows, columns = slice(max(top, 0), max(bottom, 0)), slice(max(left, 0), max(right, 0))
            alpha[rows, columns] = LEAST + (1 - LEAST) * share
    mixed = np.asarray(blurred) * (1 - alpha) + np.asarray(clear) * alpha
    panel = Image.fromarray(mixed.round().astype(np.uint8))
    _outline(panel, [box for box, position in cells if shares[position] >= 0.5])
    return panel


def _size(picture: Picture, views: Sequence[View], image: Image.Image | None) -> tuple[int, int]:
    """Return width and height of a panel in the picture's shape, or in that of its grid."""
    left, top, right, bottom = views[0].box
    grid = (views[0].columns / (right - left), views[0].rows / (bottom - top))
    shape = (image.size if image is not None else picture.size) or grid
    height = min(max(LOW, PATCH * grid[1]), HIGH)
    scale = min(height / shape[1], WIDTH / shape[0])
    return max(round(scale * shape[0]), 1), max(round(scale * shape[1]), 1)


def _ground(
    views: Sequence[View], image: Image.Image | None, size: tuple[int, int]
) -> tuple[Image.Image, Image.Image]:
    """Return what a panel is where nothing and where everything is kept."""
    if image is None:
        clear = Image.new("RGB", size, GREY)
        few = Image.new("RGB", (2, 2), GREY)
    else:
        clear = image.resize(size, Image.Resampling.LANCZOS)
        columns = max(round(1.6 * max(view.columns for view in views)), 2)
        rows = max(round(columns * size[1] / size[0]), 2)
        few = image.resize((columns, rows), Image.Resampling.BOX)
        few = Image.blend(few, few.convert("L").convert("RGB"), 0.7)
    paper = Image.new("RGB", size, PAPER)
    faded = Image.blend(paper, few.resize(size, Image.Resampling.BICUBIC), FADED)
    lines = Image.new("L", size, 0)
    pen = ImageDraw.Draw(lines)
    for start in range(-size[1], size[0], 8):
        pen.line((start, size[1], start + size[1], 0), fill=48)
    faded.paste(Image.new("RGB", size, INK), mask=lines)
    return faded, clear


def _cells(view: View, width: int, height: int) -> Iterator[tuple[tuple[int, int, int, int], int]]:
    """Yield the pixels of every token of a view, and its position in the prompt."""
    for number, line in enumerate(view.positions):
        for column, position in enumerate(line):
            if position >= 0:
                left, top, right, bottom = view.cell(number, column)
                box = (left * width, top * height, right * width, bottom * height)
                x0, y0, x1, y1 = map(round, box)
                yield (x0, y0, x1, y1), position


def _outline(panel: Image.Image, boxes: Sequence[tuple[int, int, int, int]]) -> None:
    """Draw lines around boxes, but not between two that touch."""
    edges: dict[tuple[int, int, int, int], int] = {}
    for left, top, right, bottom in boxes:
        for edge in (
            (left, top, right, top),
            (left, bottom, right, bottom),
            (left, top, left, bottom),
            (right, top, right, bottom),
        ):
            edges[edge] = edges.get(edge, 0) + 1
    pen = ImageDraw.Draw(panel)
    outer = [edge for edge, count in edges.items() if count == 1]
    for colour, wide in ((PAPER, 4), (MARK, 2)):
        for edge in outer:
            pen.line(edge, fill=colour, width=wide)


def _laid(panels: Sequence[Image.Image]) -> Image.Image:
    """Return panels beside each other, in as many rows as they need."""
    places: list[tuple[int, int]] = []
    left = top = high = 0
    for panel in panels:
        if left and left + panel.width > WIDTH:
            left, top, high = 0, top + high + GAP, 0
        places.append((left, top))
        left, high = left + panel.width + GAP, max(high, panel.height)
    width = max(x + panel.width for (x, _), panel in zip(places, panels, strict=True))
    found = Image.new("RGB", (width, top + high), PAPER)
    for place, panel in zip(places, panels, strict=True):
        found.paste(panel, place)
    return found

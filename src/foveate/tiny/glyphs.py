"""Glyph atlas and page rendering: one 16 x 16 cell per character, no system fonts."""

from functools import lru_cache
from pathlib import Path

import numpy as np

CELL = 16
DRAWN = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789."
SHIFTS = tuple((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1))
ATLAS = Path(__file__).with_name("glyphs.npz")
GLYPH = {character: index + 1 for index, character in enumerate(DRAWN)}


def build(path: Path = ATLAS) -> None:
    """Draw the shipped atlas with the font that Pillow bundles: three sizes, regular and bold."""
    from PIL import Image, ImageDraw, ImageFont

    styles = []
    for size, stroke in ((13, 0.0), (14, 0.0), (15, 0.0), (13, 0.4), (14, 0.4), (15, 0.4)):
        font, cells = ImageFont.load_default(size), []
        for character in DRAWN:
            image = Image.new("L", (CELL, CELL), 0)
            draw = ImageDraw.Draw(image)
            draw.text((8, 13), character, 255, font=font, anchor="ms", stroke_width=stroke)
            cells.append(np.asarray(image))
        styles.append(cells)
    np.savez_compressed(path, alpha=np.asarray(styles, np.uint8))


@lru_cache(maxsize=1)
def atlas() -> np.ndarray:
    """Coverage of every glyph in every style and shift: uint8 [variants, glyphs, 16, 16].

    Glyph 0 is the blank cell.
    """
    drawn = np.load(ATLAS)["alpha"]
    blank = np.zeros((len(drawn), 1, CELL, CELL), np.uint8)
    glyphs = np.concatenate([blank, drawn], axis=1)
    shifted = [np.roll(glyphs, shift, axis=(2, 3)) for shift in SHIFTS]
    return np.stack(shifted, axis=1).reshape(-1, *glyphs.shape[1:])


def cells(
    lines: tuple[str, ...], variants: np.ndarray, ink: np.ndarray, paper: np.ndarray
) -> np.ndarray:
    """The cells of a page in raster order, coloured: uint8 [H * W, 16, 16, 3]."""
    glyphs = np.array([GLYPH.get(character, 0) for line in lines for character in line])
    coverage = atlas()[variants.reshape(-1), glyphs].astype(np.uint16)[..., None]
    mixed = paper.astype(np.uint16) * (255 - coverage) + ink.astype(np.uint16) * coverage
    return ((mixed + 127) // 255).astype(np.uint8)


def page(cells: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Cells put together to one picture: uint8 [16 H, 16 W, 3]."""
    height, width = grid
    return (
        cells.reshape(height, width, CELL, CELL, 3)
        .swapaxes(1, 2)
        .reshape(height * CELL, width * CELL, 3)
    )

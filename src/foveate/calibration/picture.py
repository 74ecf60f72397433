"""A heat map of numbers per layer and head, drawn with Pillow."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

__all__ = ["heat_map"]

COLOURS = ((255, 255, 255), (107, 174, 214), (8, 48, 107))  # nothing, half, the largest
Font = ImageFont.ImageFont | ImageFont.FreeTypeFont
BORDER, TEXT = (200, 200, 200), (30, 30, 30)
LEFT, TOP, BELOW, RIGHT = 64, 40, 40, 110


def heat_map(values: Sequence[Sequence[float]], title: str) -> Image.Image:
    """Return a picture with a row per layer, a column per head, and a scale from 0 to the most."""
    layers, heads = len(values), len(values[0])
    cell = max(4, min(36, 900 // max(layers, heads)))
    wide, high = heads * cell, layers * cell
    size = (max(LEFT + wide + RIGHT, 380), TOP + max(high, 120) + BELOW)
    picture = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default()
    most = max(max(row) for row in values) or 1.0
    draw.text((8, 10), title, TEXT, font)
    for layer, row in enumerate(values):
        for head, value in enumerate(row):
            x, y = LEFT + head * cell, TOP + layer * cell
            outline = BORDER if cell >= 10 else None
            draw.rectangle((x, y, x + cell - 1, y + cell - 1), _colour(value / most), outline)
    step = -(-24 // cell)
    for layer in range(0, layers, step):
        draw.text((LEFT - 6, TOP + layer * cell + cell // 2), str(layer), TEXT, font, anchor="rm")
    for head in range(0, heads, step):
        place = (LEFT + head * cell + cell // 2, TOP + high + 6)
        draw.text(place, str(head), TEXT, font, anchor="mt")
    draw.text((8, TOP), "layer", TEXT, font)
    draw.text((LEFT, TOP + high + 22), "query head", TEXT, font)
    _scale(draw, font, LEFT + wide + 24, most)
    return picture


def _scale(draw: ImageDraw.ImageDraw, font: Font, x: int, most: float) -> None:
    """Draw the colours from 0 to the largest value."""
    for row in range(100):
        draw.line((x, TOP + row, x + 14, TOP + row), _colour(1 - row / 99))
    draw.text((x + 20, TOP), f"{most:.3g}", TEXT, font)
    draw.text((x + 20, TOP + 90), "0", TEXT, font)


def _colour(share: float) -> tuple[int, int, int]:
    """Return the colour of a share from 0 to 1."""
    low, high = COLOURS[:2] if share < 0.5 else COLOURS[1:]
    part = 2 * share if share < 0.5 else 2 * share - 1
    red, green, blue = (round(a + (b - a) * part) for a, b in zip(low, high, strict=True))
    return red, green, blue

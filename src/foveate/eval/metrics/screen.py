"""Where to click: is the point that was said inside the box? (ScreenSpot)."""

from __future__ import annotations

import re
from typing import Any

from foveate.eval.task import Sample

__all__ = ["box_hit", "box_hit_1000", "fault", "spoken"]

NUMBER = r"-?\d+(?:\.\d+)?%?"
TAG = re.compile(r"<\s*bbox[^>]*>(.*?)<\s*/\s*bbox\s*>", re.IGNORECASE | re.DOTALL)
PAIR = re.compile(rf"[\[(]\s*({NUMBER})\s*[,\s]\s*({NUMBER})\s*[\])]")
NAMED = re.compile(
    rf"x['\"]?\s*[:=]\s*({NUMBER}).*?y['\"]?\s*[:=]\s*({NUMBER})", re.IGNORECASE | re.DOTALL
)
FOUR = re.compile(rf"[\[(]\s*{NUMBER}(?:\s*[,\s]\s*{NUMBER}){{3}}\s*[\])]")
BOX_WORDS = ("box", "rect")


def box_hit(said: str, sample: Sample) -> float:
    """Return 1 if the point is in the box, edges included; beyond 1, numbers are pixels.

    The facts are `bbox` (left, top, right, bottom, in pixels or as shares of the sides; or left,
    top, width, height in pixels), `width` and `height`. Differs from lmms-eval (`screenspot_v2`):
    four numbers in brackets are a box, with no need of the word "box" beside them; and where a row
    has no size, it is that of the picture, not 1 x 1.
    """
    place = _centre(spoken(said))
    if place is None:
        return 0.0
    width, height = sample.facts["width"], sample.facts["height"]
    if max(place) > 1:
        place = place[0] / width, place[1] / height
    return float(_is_inside(place, shares(sample.facts["bbox"], width, height)))


def box_hit_1000(said: str, sample: Sample) -> float:
    """Return the same for models that speak of thousandths: beyond 1, numbers are those of a side.

    Differs from lmms-eval (`screenspot_rec`, centre): points count, too, and what holds no numbers
    is a miss, not the upper left corner.
    """
    numbers = spoken(said)
    place = _centre(
        [number / 1000 for number in numbers] if max(numbers, default=0) > 1 else numbers
    )
    if place is None:
        return 0.0
    box = shares(sample.facts["bbox"], sample.facts["width"], sample.facts["height"])
    return float(_is_inside(place, box))


def spoken(said: str) -> list[float]:
    """Return the two numbers of the point, or the four of the box; none if there is neither."""
    tagged = TAG.search(said)
    if tagged and len(corners := _numbers(tagged[1])) >= 4:
        return corners[:4]
    pair = PAIR.search(said) or NAMED.search(said)
    if pair:
        return [_number(pair[1]), _number(pair[2])]
    four = FOUR.search(said)
    if four:
        return _numbers(four[0])
    numbers = _numbers(said)
    if len(numbers) >= 4 and any(word in said.lower() for word in BOX_WORDS):
        return numbers[:4]
    return numbers[:2] if len(numbers) >= 2 else []


def _centre(numbers: list[float]) -> tuple[float, float] | None:
    """The middle of a box, or the point itself."""
    if not numbers:
        return None
    return (numbers[0] + numbers[-2]) / 2, (numbers[1] + numbers[-1]) / 2


def _numbers(text: str) -> list[float]:
    return [_number(found) for found in re.findall(NUMBER, text)]


def _number(text: str) -> float:
    return float(text[:-1]) / 100 if text.endswith("%") else float(text)


def shares(box: Any, width: float, height: float) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom as shares of the sides."""
    left, top, right, bottom = (float(edge) for edge in box)
    is_ordered = right >= left and bottom >= top
    if is_ordered and all(0 <= edge <= 1 for edge in (left, top, right, bottom)):
        return left, top, right, bottom
    if not (right > left and bottom > top):
        right, bottom = left + right, top + bottom
    return left / width, top / height, right / width, bottom / height


def _is_inside(place: tuple[float, float], box: tuple[float, float, float, float]) -> bool:
    return box[0] <= place[0] <= box[2] and box[1] <= place[1] <= box[3]


def fault(sample: Sample) -> str | None:
    """Return what keeps a point from being compared with a box."""
    if "bbox" not in sample.facts:
        return "it has no box (column bbox)"
    box = sample.facts["bbox"]
    if not isinstance(box, list | tuple) or len(box) != 4:
        return f"its box is {box!r}, not four numbers"
    if not all(isinstance(edge, int | float) and edge == edge for edge in box):
        return f"its box is {box!r}, not four numbers"
    return None

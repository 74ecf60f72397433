"""Pictures that always become one square of tokens: LLaVA-1.5, Gemma 3, PaliGemma.

Gemma 3 and PaliGemma stretch a picture to the square; LLaVA-1.5 shrinks its shorter side to it and
cuts off what sticks out at both ends of the longer one, unless its processor adds a border instead.
"""

from __future__ import annotations

import math

from foveate.errors import InputError
from foveate.hf.support import optional
from foveate.hf.views.asked import Asked, Size
from foveate.hf.views.shape import Shape, grid
from foveate.picture import WHOLE, Box, View


def stretched(asked: Asked) -> list[Shape]:
    """Return squares that show whole pictures."""
    return [_square(asked, covered(asked))] * _count(asked)


def cropped(asked: Asked) -> list[Shape]:
    """Return squares from the middle of pictures, or with a border if the processor adds one."""
    return [_square(asked, _framed(asked, asked.size(n))) for n in range(_count(asked))]


def _square(asked: Asked, box: Box) -> Shape:
    length = side(asked)
    return Shape(length * length, (View("whole", grid(length, length), box),))


def _count(asked: Asked) -> int:
    """Return how many squares a row's placeholders are."""
    each, tokens = side(asked) ** 2, len(asked.positions)
    if tokens % each:
        raise InputError(
            f"the prompt has {tokens} placeholders, and the config states pictures of {each} "
            "tokens; give what the processor returned, unchanged"
        )
    return tokens // each


def side(asked: Asked) -> int:
    """Return how many tokens one side of a square has, by the config."""
    for name in ("mm_tokens_per_image", "image_seq_length"):
        tokens = optional(asked.config, name)
        if isinstance(tokens, int):
            if math.isqrt(tokens) ** 2 != tokens:
                raise InputError(
                    f"{name}={tokens} of the config is no square; where this model's visual tokens "
                    "are cannot be known"
                )
            return math.isqrt(tokens)
    return tower(asked)


def tower(asked: Asked) -> int:
    """Return how many patches one side of a tile has, by the config of the vision tower."""
    return int(optional(asked.vision, "image_size")) // int(optional(asked.vision, "patch_size"))


def covered(asked: Asked) -> Box:
    """Return which part of a square the patches cover: what is left over is never looked at."""
    pixels = optional(asked.vision, "image_size")
    share = tower(asked) * int(optional(asked.vision, "patch_size")) / int(pixels)
    return (0.0, 0.0, share, share)


def bordered(size: Size) -> Box:
    """Return the square around the middle of a picture that holds all of it."""
    return _middle(size, float(max(size)))


def _middle(size: Size, length: float) -> Box:
    """Return a square of so many pixels a side, in the middle of a picture."""
    width, height = size
    left, top = (width - length) / 2, (height - length) / 2
    return (left / width, top / height, (left + length) / width, (top + length) / height)


def _framed(asked: Asked, size: Size | None) -> Box:
    """Return which part of a picture its square shows."""
    if size is None:
        return WHOLE
    if asked.setting("do_pad", False):
        return bordered(size)
    if asked.setting("do_center_crop", True):
        return _middle(size, min(size) * _share(asked))
    return WHOLE


def _share(asked: Asked) -> float:
    """Return the side of what is cut out, in shares of the picture's shorter side."""
    shrunk = dict(asked.setting("size", {})).get("shortest_edge")
    cut = dict(asked.setting("crop_size", {})).get("height")
    return cut / shrunk if cut and shrunk else 1.0

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
    return [_square(asked, WHOLE)] * _count(asked)


def cropped(asked: Asked) -> list[Shape]:
    """Return squares from the middle of pictures, or with a border if the processor adds one."""
    return [_square(asked, _framed(asked, asked.size(n))) for n in range(_count(asked))]


def _square(asked: Asked, box: Box) -> Shape:
    side = _side(asked)
    return Shape(side * side, (View("whole", grid(side, side), box),))


def _count(asked: Asked) -> int:
    """Return how many squares a row's placeholders are."""
    each, tokens = _side(asked) ** 2, len(asked.positions)
    if tokens % each:
        raise InputError(
            f"the prompt has {tokens} placeholders, and the config states pictures of {each} "
            "tokens; give what the processor returned, unchanged"
        )
    return tokens // each


def _side(asked: Asked) -> int:
    """Return how many tokens one side of the square has, by the config."""
    config, vision = asked.config, asked.vision
    for name in ("mm_tokens_per_image", "image_seq_length"):
        tokens = optional(config, name)
        if isinstance(tokens, int):
            if math.isqrt(tokens) ** 2 != tokens:
                raise InputError(
                    f"{name}={tokens} of the config is no square; where this model's visual tokens "
                    "are cannot be known"
                )
            return math.isqrt(tokens)
    return int(optional(vision, "image_size")) // int(optional(vision, "patch_size"))


def _framed(asked: Asked, size: Size | None) -> Box:
    """Return which part of a picture its square shows."""
    if size is None or size[0] == size[1]:
        return WHOLE
    width, height = size
    if asked.setting("do_pad", False):
        side = float(max(size))
    elif asked.setting("do_center_crop", True):
        side = min(size) * _share(asked)
    else:
        return WHOLE
    left, top = (width - side) / 2, (height - side) / 2
    return (left / width, top / height, (left + side) / width, (top + side) / height)


def _share(asked: Asked) -> float:
    """Return the side of what is cut out, in shares of the picture's shorter side."""
    shrunk = dict(asked.setting("size", {})).get("shortest_edge")
    cut = dict(asked.setting("crop_size", {})).get("height")
    return cut / shrunk if cut and shrunk else 1.0

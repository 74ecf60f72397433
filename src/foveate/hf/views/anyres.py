"""Pictures at any resolution: LLaVA-NeXT and LLaVA-OneVision, whose videos are here, too.

A view of the whole picture, stretched to a tile, is followed by a detailed one: the picture is put
in the middle of the canvas of tiles that fits best, rows of tokens that show nothing but border
are cut off, and every row ends with a token that has no place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from foveate.errors import InputError
from foveate.hf.support import optional
from foveate.hf.views.asked import Asked, Size
from foveate.hf.views.prompt import runs
from foveate.hf.views.shape import Shape, dealt, grid
from foveate.hf.views.square import bordered, covered, tower
from foveate.picture import WHOLE, Box, View

MUCH = 1.1  # how far above its limit a detailed view must be to be shrunk, along each side


def images(asked: Asked) -> list[Shape]:
    """Return the overview and the detailed view of a row's pictures, or of one of several a square.

    Of a picture that stands beside others in a conversation, LLaVA-OneVision shows a square alone.
    """
    sizes = asked.inputs.get("image_sizes")
    if sizes is None:
        raise InputError(
            "no image_sizes came, on which the tokens of this model's pictures depend; give what "
            "the processor returned, unchanged"
        )
    listed = [(int(width), int(height)) for height, width in sizes.tolist()]
    beside = asked.inputs.get("batch_num_images")
    groups = [1] * len(listed) if beside is None else [int(n) for n in beside.tolist()]
    alone = [count == 1 for count in groups for _ in range(count)]
    shapes = [
        _detailed(asked, size) if single else _one_of_several(asked, size)
        for size, single in zip(listed, alone, strict=True)
    ]
    return dealt(shapes, [len(row) for row in asked.prompts.images], "image_sizes")[asked.row]


def videos(asked: Asked) -> list[Shape]:
    """Return the frames of a row's videos, each pooled to a smaller square."""
    pool, marks = optional(asked.config, "spatial_pool_stride"), 0
    side = tower(asked)
    if pool is None:  # LLaVA-OneVision, which ends a video with a mark
        pool, marks = 2, 1
    side = math.ceil(side / pool) if marks else side // pool
    shapes = []
    for run in runs(asked.prompts.videos[asked.row]):
        frames, rest = divmod(len(run) - marks, side * side)
        if rest:
            raise InputError(
                f"a video of {len(run)} placeholders is no whole number of frames of {side * side} "
                "tokens; give what the processor returned, unchanged"
            )
        shapes.append(_frames(frames, side, marks, covered(asked)))
    return shapes


def _frames(count: int, side: int, marks: int, box: Box) -> Shape:
    each = side * side
    views = (
        View(f"frame {n + 1}", grid(side, side, n * each), box, frames=(n, n)) for n in range(count)
    )
    return Shape(count * each + marks, tuple(views), video=True)


def _one_of_several(asked: Asked, size: Size) -> Shape:
    """Return a picture that a border makes a square, with a mark behind it."""
    side = tower(asked)
    view = View("whole", grid(side, side), bordered(size))
    return Shape(side * side + 1, (view,), size)


def _detailed(asked: Asked, size: Size) -> Shape:
    """Return the overview and the detailed view of a picture; the second may have no tokens."""
    side = tower(asked)
    rows, columns, box = _canvas(asked, size)
    views = [View("whole", grid(side, side), covered(asked))]
    if rows * columns:
        views.append(View("detail", grid(rows, columns, side * side, gap=1), box))
    return Shape(side * side + rows * (columns + 1), tuple(views), size)


def _canvas(asked: Asked, size: Size) -> tuple[int, int, Box]:
    """Return the rows and columns of the detailed view, and what it shows of the picture."""
    width, height = size
    side, tile = tower(asked), int(optional(asked.vision, "image_size"))
    best = best_canvas(size, optional(asked.config, "image_grid_pinpoints"))
    rows, columns = (pixels // tile * side for pixels in best)
    above = beside = 0
    if width / height > columns / rows:
        above = (rows - int(round(height * (columns / width), 7))) // 2
    else:
        beside = (columns - int(round(width * (rows / height), 7))) // 2
    box = _shown(size, best, (beside * tile / side, above * tile / side))
    rows, columns = rows - 2 * above, columns - 2 * beside
    limit = str(optional(asked.config, "vision_aspect_ratio") or "").removeprefix("anyres_max_")
    ratio = math.sqrt(rows * columns / (int(limit) * side**2)) if limit.isdigit() else 1.0
    if ratio > MUCH:
        rows, columns = int(rows // ratio), int(columns // ratio)
    return rows, columns, box


def best_canvas(size: Size, allowed: Sequence[Sequence[int]]) -> tuple[int, int]:
    """Return the height and width that hold most of a picture's pixels, and least that is empty."""

    def fit(canvas: Sequence[int]) -> tuple[int, int]:
        shrink = min(canvas[1] / size[0], canvas[0] / size[1])
        filled = int(size[0] * shrink) * int(size[1] * shrink)
        filled = min(filled, size[0] * size[1])
        return filled, filled - canvas[0] * canvas[1]

    height, width = max(allowed, key=fit)
    return int(height), int(width)


def _shown(size: Size, canvas: tuple[int, int], cut: tuple[float, float]) -> Box:
    """Return the picture's part in a canvas (height, width) that is cut at all sides (x, y)."""
    shrink = min(canvas[1] / size[0], canvas[0] / size[1])
    box = []
    for pixels, across, away in zip(size, reversed(canvas), cut, strict=True):
        shown = min(math.ceil(pixels * shrink - 1e-9), across)
        start = (across - shown) // 2
        box.append(((away - start) / shown, (across - away - start) / shown))
    (left, right), (top, bottom) = box
    return WHOLE if (left, top, right, bottom) == WHOLE else (left, top, right, bottom)

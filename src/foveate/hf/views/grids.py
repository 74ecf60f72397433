"""Pictures whose patch grid the processor returns: Qwen-VL and every family that took over its way.

A picture is stretched to whole patches, which the model merges to tokens row by row; a video is
one grid for every few frames.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from foveate.hf.support import optional
from foveate.hf.views.asked import Asked
from foveate.hf.views.shape import Shape, dealt, grid
from foveate.picture import View


def images(asked: Asked) -> list[Shape]:
    """Return the grids of a row's pictures."""
    given = asked.inputs["image_grid_thw"]
    shapes = []
    for (_, rows, columns), merge in zip(given.tolist(), _merges(asked, given), strict=True):
        rows, columns = rows // merge, columns // merge
        shapes.append(Shape(rows * columns, (View("whole", grid(rows, columns)),)))
    return dealt(shapes, [len(row) for row in asked.prompts.images], "image_grid_thw")[asked.row]


def videos(asked: Asked) -> list[Shape]:
    """Return the grids of a row's videos: one for all frames that the model merges to one."""
    given, merge = asked.inputs["video_grid_thw"], _merge(asked)
    together = optional(asked.vision, "temporal_patch_size") or 1
    lasting = asked.inputs.get("second_per_grid_ts")
    shapes = []
    for number, (groups, rows, columns) in enumerate(given.tolist()):
        second = None if lasting is None else float(lasting[number])
        size = (rows // merge, columns // merge)
        views = tuple(_moment(group, together, size, second) for group in range(groups))
        shapes.append(Shape(groups * size[0] * size[1], views, video=True))
    return dealt(shapes, [len(row) for row in asked.prompts.videos], "video_grid_thw")[asked.row]


def _moment(group: int, together: int, size: tuple[int, int], second: float | None) -> View:
    """Return the view of one group of frames, which lasts so many seconds."""
    first, last = group * together, (group + 1) * together - 1
    return View(
        f"frame {first + 1}" if first == last else f"frames {first + 1}-{last + 1}",
        grid(*size, group * size[0] * size[1]),
        frames=(first, last),
        seconds=None if second is None else (group * second, (group + 1) * second),
    )


def _merge(asked: Asked) -> int:
    """Return how many patches beside each other become one token, by the config."""
    return optional(asked.vision, "spatial_merge_size") or 1


def _merges(asked: Asked, given: Tensor) -> list[Any]:
    """Return how many patches beside each other become one token, for every picture."""
    stated = asked.inputs.get("image_merge_sizes")
    return [_merge(asked)] * len(given) if stated is None else stated.tolist()

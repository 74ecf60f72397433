"""Pictures of their own size whose rows of tokens end with a token of text: Pixtral, Mistral 3.

A picture is stretched to whole tokens; `image_sizes` is its size after that.
"""

from __future__ import annotations

from foveate.errors import InputError
from foveate.hf.support import optional
from foveate.hf.views.asked import Asked
from foveate.hf.views.shape import Shape, dealt, grid
from foveate.picture import View


def images(asked: Asked) -> list[Shape]:
    """Return the grids of a row's pictures."""
    sizes = asked.inputs.get("image_sizes")
    if sizes is None:
        raise InputError(
            "no image_sizes came, on which the tokens of this model's pictures depend; give what "
            "the processor returned, unchanged"
        )
    merge = optional(asked.config, "spatial_merge_size") or 1
    cell = int(optional(asked.vision, "patch_size")) * merge
    shapes = []
    for height, width in sizes.tolist():
        rows, columns = int(height) // cell, int(width) // cell
        shapes.append(Shape(rows * columns, (View("whole", grid(rows, columns)),)))
    return dealt(shapes, [len(row) for row in asked.prompts.images], "image_sizes")[asked.row]

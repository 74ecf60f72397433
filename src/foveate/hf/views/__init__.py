"""Where on the picture every visual token of a prompt is, as the real processors put them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from foveate.errors import InputError
from foveate.hf.views import anyres, breaks, grids, square, tiles
from foveate.hf.views.asked import Asked, Reader, Size
from foveate.hf.views.prompt import Positions, Prompts
from foveate.hf.views.shape import Shape
from foveate.picture import Box, Picture, View

__all__ = ["Box", "Picture", "View", "pictures"]

IMAGES: dict[str, Reader] = {
    "gemma3": square.stretched,
    "idefics3": tiles.apart,
    "internvl": tiles.joined,
    "llava": square.cropped,
    "llava_next": anyres.images,
    "llava_next_video": anyres.images,
    "llava_onevision": anyres.images,
    "mistral3": breaks.images,
    "paligemma": square.stretched,
    "shieldgemma2": square.stretched,
    "smolvlm": tiles.apart,
    "vipllava": square.cropped,
}
VIDEOS: dict[str, Reader] = {
    "llava_next_video": anyres.videos,
    "llava_onevision": anyres.videos,
}


def pictures(
    config: Any,
    inputs: Mapping[str, Any],
    sizes: Sequence[Size] | None = None,
    row: int = 0,
    *,
    processor: Any = None,
) -> tuple[Picture, ...]:
    """Return where on its pictures the visual tokens of one row of a prompt are.

    `inputs` is what the processor returned, `sizes` (width, height) of the row's images before
    processing (videos have none), and `processor` the image processor, whose settings say whether
    it cuts pictures or adds borders; without it, what checkpoints of the family do is assumed.
    Raises `InputError` where places cannot be known.
    """
    prompts = Prompts.of(config, inputs)
    if not -len(prompts.ids) <= row < len(prompts.ids):
        raise InputError(f"row {row} was asked for, and the prompt has {len(prompts.ids)} rows")
    known = None if sizes is None else tuple((int(width), int(height)) for width, height in sizes)
    asked = Asked(config, inputs, prompts, row % len(prompts.ids), known, processor)
    found: list[Picture] = []
    if prompts.images[asked.row]:
        found += _placed(_images(asked), asked.positions, known)
    if prompts.videos[asked.row]:
        found += _placed(_videos(asked), prompts.videos[asked.row], None)
    return tuple(sorted(found, key=_begin))


def _images(asked: Asked) -> list[Shape]:
    """Return the shapes of a row's pictures, which are as many as the sizes that came."""
    shapes = _reader(asked, IMAGES, "image")(asked)
    if asked.sizes is not None:
        check_sizes(asked.sizes, len(shapes))
    return shapes


def check_sizes(sizes: Sequence[Size], count: int) -> None:
    """Raise `InputError` unless so many sizes came as there are pictures."""
    if len(sizes) != count:
        raise InputError(
            f"sizes of {len(sizes)} pictures came, and the row has {count}; give the width and "
            "height of each, in their order"
        )


def _videos(asked: Asked) -> list[Shape]:
    """Return the shapes of a row's videos."""
    return _reader(asked, VIDEOS, "video")(asked)


def _reader(asked: Asked, known: Mapping[str, Reader], what: str) -> Reader:
    """Return what reads the pictures or videos of this model."""
    model = str(getattr(asked.config, "model_type", "this model"))
    grid = f"{what}_grid_thw"
    if asked.inputs.get(grid) is not None:
        return grids.images if what == "image" else grids.videos
    if what == "image" and getattr(asked.vision, "model_type", None) == "pixtral":
        return breaks.images
    if model not in known:
        raise InputError(
            f"where the visual tokens of {model} are on an image or video is unknown: no {grid} "
            f"came, and without one Foveate knows the places of {', '.join(sorted(known))} alone"
        )
    return known[model]


def _placed(
    shapes: Sequence[Shape], positions: Positions, sizes: Sequence[Size] | None
) -> list[Picture]:
    """Return pictures whose tokens follow one another at these positions."""
    found, at = [], 0
    for number, shape in enumerate(shapes):
        size = None if sizes is None else sizes[number]
        found.append(shape.placed(positions[at : at + shape.tokens], size))
        at += shape.tokens
    return found


def _begin(picture: Picture) -> int:
    """Return where a picture's first token is."""
    return min(at for view in picture.views for row in view.positions for at in row if at >= 0)

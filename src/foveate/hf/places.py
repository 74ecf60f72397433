"""Where on the picture the visual tokens of a prompt are, for the processors that let us know."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers.image_processing_utils import select_best_resolution

from foveate.calibration.boxes import Cells, Stated
from foveate.errors import InputError
from foveate.hf.kinds import forward_kinds, visual_ids
from foveate.hf.support import optional

__all__ = ["picture_cells"]


def picture_cells(
    config: Any,
    inputs: Mapping[str, Any],
    size: tuple[int, int],
    *,
    stated: Stated | None = None,
    cropped: bool = False,
) -> Cells:
    """Return the prompt positions of the tokens of the prompt's only picture, as its rows.

    `size` is the picture's width and height before processing, `cropped` whether the processor cuts
    it to a square. Raises `InputError` where the places cannot be known.
    """
    kinds = forward_kinds(
        config, inputs, trust_ids=True, special=(), placeholder=None, visual_mask=None
    )
    visual = kinds.visual[0].nonzero().flatten().tolist()
    if not visual:
        raise InputError(
            f"the prompt has none of the picture's placeholders ({visual_ids(config)} by the "
            "model's config); this model's visual tokens cannot be placed"
        )
    if stated is not None:
        return stated.cells(visual)
    spans = torch.bincount(kinds.span[0][kinds.span[0] >= 0]).tolist()
    grid = kinds.grids[0] if kinds.grids else ()
    if len(grid) == 1 and grid[0][0] == 1:
        return Stated(grid[0][1], grid[0][2]).cells(visual)
    found = _square(config, spans)
    if found and cropped and size[0] != size[1]:
        raise InputError(
            f"the processor cuts pictures to a square, and this one has {size[0]} x {size[1]} "
            "pixels; give square pictures"
        )
    found = found or _written_rows(config, inputs, spans) or _any_resolution(config, inputs, spans)
    cells = found.cells(visual) if found else _tiles(config, spans, visual, size)
    if cells is None:
        raise _unknown(config, spans)
    return cells


def _unknown(config: Any, spans: Sequence[int]) -> InputError:
    shown = ", ".join(map(str, spans[:4])) + (" ..." if len(spans) > 4 else "")
    return InputError(
        f"where the visual tokens of {getattr(config, 'model_type', 'this model')} are on the "
        f"picture is unknown: no image_grid_thw came, and {len(spans)} runs of {shown} tokens are "
        "no grid that its config states; state it with --grid ROWSxCOLUMNS, such as --grid "
        "16x16@-256 for a view of the whole picture in the last 256 visual tokens"
    )


def _square(config: Any, spans: Sequence[int]) -> Stated | None:
    """Return the grid of a picture that is always one square of tokens (LLaVA-1.5, Gemma 3)."""
    side = math.isqrt(spans[0])
    names = ("image_seq_length", "mm_tokens_per_image")
    usual = [getattr(config, name, None) for name in names]
    if len(spans) == 1 and side * side == spans[0] and spans[0] in usual:
        return Stated(side, side)
    return None


def _written_rows(config: Any, inputs: Mapping[str, Any], spans: Sequence[int]) -> Stated | None:
    """Return the grid of a picture whose rows end with a token of text (Pixtral, Mistral 3)."""
    sizes, vision = inputs.get("image_sizes"), optional(config, "vision_config")
    patch = optional(vision, "patch_size")
    if sizes is None or len(sizes) != 1 or not isinstance(patch, int):
        return None
    cell = patch * (optional(config, "spatial_merge_size") or 1)
    height, width = (int(pixels) // cell for pixels in sizes[0])
    return Stated(height, width) if list(spans) == [width] * height else None


def _any_resolution(config: Any, inputs: Mapping[str, Any], spans: Sequence[int]) -> Stated | None:
    """Return the grid of the detailed view of LLaVA-NeXT and LLaVA-OneVision; rows end in a mark.

    It follows an overview of one tile, and the border that was added to the picture is cut off.
    """
    sizes, pinpoints = inputs.get("image_sizes"), optional(config, "image_grid_pinpoints")
    vision = optional(config, "vision_config")
    tile, patch = optional(vision, "image_size"), optional(vision, "patch_size")
    if sizes is None or len(sizes) != 1 or not pinpoints or len(spans) != 1:
        return None
    if not isinstance(tile, int) or not isinstance(patch, int):
        return None
    side = tile // patch
    height, width = (int(x) for x in sizes[0])
    best = select_best_resolution((height, width), pinpoints)
    rows, columns = (pixels // tile * side for pixels in best)
    if width / height > columns / rows:
        rows -= (rows - int(round(height * (columns / width), 7))) // 2 * 2
    else:
        columns -= (columns - int(round(width * (rows / height), 7))) // 2 * 2
    limit = str(optional(config, "vision_aspect_ratio") or "").removeprefix("anyres_max_")
    if limit.isdigit():
        ratio = math.sqrt(rows * columns / (int(limit) * side**2))
        if ratio > 1.1:
            rows, columns = int(rows // ratio), int(columns // ratio)
    if spans[0] != side**2 + rows * (columns + 1):
        return None
    return Stated(rows, columns, gap=1, start=side**2)


def _tiles(
    config: Any, spans: Sequence[int], visual: Sequence[int], size: tuple[int, int]
) -> Cells | None:
    """Return the grid of square tiles before a small view of all (InternVL, Idefics 3, SmolVLM)."""
    usual = optional(config, "image_seq_length")
    joined = len(spans) == 1 and hasattr(config, "downsample_ratio") and isinstance(usual, int)
    apart = len(spans) > 1 and len(set(spans)) == 1 and hasattr(config, "scale_factor")
    each = int(usual) if joined else spans[0]
    count, rest = divmod(len(visual), each)
    side = math.isqrt(each)
    if not (joined or apart) or rest or side * side != each or count < 3:
        return None
    across = _nearest(count - 1, size) if joined else _covering(count - 1, size)
    down = (count - 1) // across
    return tuple(
        tuple(
            visual[((y // side) * across + x // side) * each + (y % side) * side + x % side]
            for x in range(across * side)
        )
        for y in range(down * side)
    )


def _nearest(tiles: int, size: tuple[int, int]) -> int:
    """Return the columns of that many tiles whose shape is nearest to a picture's (InternVL)."""
    ratio = size[0] / size[1]
    return min(_divisors(tiles), key=lambda across: abs(ratio - across * across / tiles))


def _covering(tiles: int, size: tuple[int, int]) -> int:
    """Return the columns of that many tiles whose longer side a picture fills (Idefics 3)."""
    share = min(size) / max(size)
    long = min(_divisors(tiles), key=lambda side: abs(tiles // side - math.ceil(share * side)))
    return long if size[0] >= size[1] else tiles // long


def _divisors(number: int) -> list[int]:
    """Return the divisors of a number, the largest first."""
    return [one for one in range(number, 0, -1) if number % one == 0]

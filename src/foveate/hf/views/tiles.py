"""Pictures that are cut into square tiles before a small view of all: InternVL, Idefics 3, SmolVLM.

A picture is stretched to fill its tiles, which follow one another row by row. How many lie side by
side InternVL decides from the picture's size, and Idefics 3 writes into the prompt.
"""

from __future__ import annotations

from foveate.errors import InputError
from foveate.hf.support import optional
from foveate.hf.views.asked import Asked, Size
from foveate.hf.views.labels import arrangements
from foveate.hf.views.shape import Shape, grid
from foveate.hf.views.square import side, tower
from foveate.picture import Box, View


def joined(asked: Asked) -> list[Shape]:
    """Return pictures whose tiles and small view follow one another without a mark (InternVL)."""
    each = side(asked) ** 2
    shapes = []
    for number, run in enumerate(asked.runs):
        count, rest = divmod(len(run), each)
        if rest:
            raise InputError(
                f"a picture of {len(run)} placeholders is no whole number of tiles of {each} "
                "tokens; give what the processor returned, unchanged"
            )
        across = 1 if count == 1 else _nearest(count - 1, _needed(asked, number))
        shapes.append(_tiled(count, across, side(asked)))
    return shapes


def apart(asked: Asked) -> list[Shape]:
    """Return pictures whose tiles and small view stand apart (Idefics 3, SmolVLM)."""
    length = tower(asked) // int(optional(asked.config, "scale_factor") or 1)
    found = asked.runs
    if {len(run) for run in found} != {length * length}:
        raise InputError(
            f"the row has runs of {', '.join(map(str, sorted({len(run) for run in found})))} "
            f"placeholders, and a tile of this model has {length * length}; give what the "
            "processor returned, unchanged"
        )
    written = arrangements(asked.prompts.ids[asked.row].tolist(), found)
    if written is None:  # one picture is all of the tiles
        size = _needed(asked, 0)
        if asked.sizes is not None and len(asked.sizes) > 1:
            raise _unwritten()
        written = [(len(found), _covering(len(found) - 1, size) if len(found) > 1 else 1)]
    return [_tiled(count, across, length) for count, across in written]


def _tiled(count: int, across: int, length: int) -> Shape:
    """Return a picture of `count` squares: tiles, so many side by side, and the view of all."""
    each, down = length * length, (count - 1) // across
    views = [
        View(f"tile {n + 1}", grid(length, length, n * each), _part(n, across, down))
        for n in range(count - 1)
    ]
    whole = View("whole", grid(length, length, (count - 1) * each))
    return Shape(count * each, (*views, whole))


def _part(number: int, across: int, down: int) -> Box:
    """Return what a tile shows of a picture."""
    row, column = divmod(number, across)
    return (column / across, row / down, (column + 1) / across, (row + 1) / down)


def _needed(asked: Asked, number: int) -> Size:
    """Return a picture's size; raises `InputError` where tiles cannot be placed without it."""
    size = asked.size(number)
    if size is None:
        raise InputError(
            "how many tiles lie side by side depends on the size of a picture, which the model is "
            "not given; state the pictures' sizes (width, height) before processing"
        )
    return size


def _unwritten() -> InputError:
    return InputError(
        "the prompt does not say where one picture's tiles end and the next one's begin; give what "
        "the processor returned, unchanged, or one picture per prompt"
    )


def _nearest(tiles: int, size: Size) -> int:
    """Return the columns of that many tiles whose shape is nearest to a picture's (InternVL)."""
    ratio = size[0] / size[1]
    return min(divisors(tiles), key=lambda across: abs(ratio - across * across / tiles))


def _covering(tiles: int, size: Size) -> int:
    """Return the columns of that many tiles whose longer side a picture fills (Idefics 3)."""
    share = min(size) / max(size)
    long = min(divisors(tiles), key=lambda side: abs(tiles // side - _up(share * side)))
    return long if size[0] >= size[1] else tiles // long


def _up(value: float) -> int:
    return -int(-value // 1)


def divisors(number: int) -> list[int]:
    """Return the divisors of a number, the largest first."""
    return [one for one in range(number, 0, -1) if number % one == 0]

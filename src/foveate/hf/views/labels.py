"""How Idefics 3 and SmolVLM write into a prompt which tiles lie side by side.

A tile is `<mark><row_1_col_2>` and its placeholders, a line ends behind each row of tiles, and the
view of all is `<mark><global-img>`, placeholders and `<mark>`. No vocabulary is needed: what stands
before a row's last run of placeholders is the name of every view of all.
"""

from __future__ import annotations

from collections.abc import Sequence

from foveate.hf.views.prompt import Positions

LONGEST = 24  # tokens of a tile's name


def arrangements(ids: Sequence[int], runs: Sequence[Positions]) -> list[tuple[int, int]] | None:
    """Return how many tiles each picture has, the view of all included, and how many side by side.

    None where the prompt is not written in this way.
    """
    behind = runs[-1][-1] + 1
    if behind >= len(ids):
        return None
    mark = ids[behind]
    names = [_name(ids, run[0], mark) for run in runs]
    if None in names:
        return None
    found, first = [], 0
    for number, name in enumerate(names):
        if name == names[-1]:
            across = _side_by_side(ids, runs[first:number], mark)
            if across is None:
                return None
            found.append((number + 1 - first, across))
            first = number + 1
    return found


def _name(ids: Sequence[int], at: int, mark: int) -> tuple[int, ...] | None:
    """Return the ids from the last mark to a run of placeholders at `at`."""
    for back in range(at - 1, max(at - LONGEST, 0) - 1, -1):
        if ids[back] == mark:
            return tuple(ids[back + 1 : at])
    return None


def _side_by_side(ids: Sequence[int], tiles: Sequence[Positions], mark: int) -> int | None:
    """Return after how many tiles a row ends; None where rows differ."""
    rows: list[int] = []
    for number in range(len(tiles)):
        if number == 0 or ids[tiles[number - 1][-1] + 1] != mark:  # a line ended
            rows.append(0)
        rows[-1] += 1
    if not rows:
        return 1
    return rows[0] if len(set(rows)) == 1 else None

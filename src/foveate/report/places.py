"""Pictures as sheets: views that lie beside each other on one, views of the same part on more."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from foveate.picture import Picture, View

__all__ = ["Sheet", "placed", "sheets", "unplaced"]

Sheet = dict[str, Any]


def sheets(picture: Picture) -> list[tuple[View, ...]]:
    """Return the views of a picture in groups that cover no part of it twice, in order."""
    found: list[tuple[View, ...]] = []
    for view in picture.views:
        if found and not any(_overlap(view.box, other.box) for other in found[-1]):
            found[-1] += (view,)
        else:
            found.append((view,))
    return found


def placed(picture: Picture, number: Mapping[int, int]) -> list[Sheet]:
    """Return the sheets of a picture as plain values; `number` counts the visual positions."""
    return [
        {
            "name": group[0].name if len(group) == 1 else f"{len(group)} tiles",
            "views": [
                {
                    "name": view.name,
                    "box": [round(edge, 6) for edge in view.box],
                    "rows": view.rows,
                    "columns": view.columns,
                    "cells": list(_cells(view, number)),
                }
                for view in group
            ],
        }
        for group in sheets(picture)
    ]


def _cells(view: View, number: Mapping[int, int]) -> Iterator[int]:
    """Yield which visual token each cell of a view is, row by row; -1 for none."""
    for row in view.positions:
        yield from (number.get(position, -1) for position in row)


def unplaced(tokens: Sequence[int]) -> Sheet:
    """Return a sheet of visual tokens in reading order, where nobody knows their places."""
    columns = max(math.ceil(math.sqrt(len(tokens))), 1)
    rows = math.ceil(len(tokens) / columns)
    cells = [*tokens, *[-1] * (rows * columns - len(tokens))]
    view = {"name": "tokens in order", "box": [0, 0, 1, 1], "rows": rows, "columns": columns}
    return {"name": "tokens in order", "views": [{**view, "cells": cells}]}


def _overlap(one: Sequence[float], other: Sequence[float]) -> bool:
    """Return whether two boxes share more than an edge."""
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    return wide > 1e-6 and high > 1e-6

"""Views of pictures as sheets: beside each other where they can, behind each other where not."""

from foveate.picture import Picture, View
from foveate.report.places import placed, sheets, unplaced


def view(name, box, start=0):
    return View(name, ((start, start + 1), (start + 2, start + 3), (start + 4, -1)), box)


TILES = [view(f"tile {i + 1}", (i / 3, 0.0, (i + 1) / 3, 1.0), 7 * i) for i in range(3)]
WHOLE = view("whole", (0.0, 0.0, 1.0, 1.0), 31)


def test_tiles_share_a_sheet_and_the_thumbnail_has_its_own():
    found = sheets(Picture((*TILES, WHOLE)))
    assert [[one.name for one in group] for group in found] == [
        ["tile 1", "tile 2", "tile 3"],
        ["whole"],
    ]


def test_the_overview_may_come_first():
    assert [len(group) for group in sheets(Picture((WHOLE, *TILES)))] == [1, 3]


def test_frames_have_sheets_of_their_own():
    frames = [view(f"frame {i}", (0.0, 0.0, 1.0, 1.0), 11 * i) for i in range(5)]
    assert len(sheets(Picture(tuple(frames), video=True))) == 5


def test_cells_are_numbers_of_visual_tokens():
    number = {31 + i: 100 + i for i in range(5)}
    (sheet,) = placed(Picture((WHOLE,)), number)
    assert sheet["name"] == "whole"
    assert sheet["views"] == [
        {
            "name": "whole", "box": [0.0, 0.0, 1.0, 1.0], "rows": 3, "columns": 2,
            "cells": [100, 101, 102, 103, 104, -1],
        }
    ]  # fmt: skip


def test_reading_order_fills_a_square():
    (only,) = unplaced(range(7))["views"]
    assert (only["rows"], only["columns"]) == (3, 3)
    assert only["cells"] == [0, 1, 2, 3, 4, 5, 6, -1, -1]

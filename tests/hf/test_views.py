"""Where `pictures` puts visual tokens is where the model puts what was painted there."""

import random

import pytest
import torch

from easels import EASELS
from foveate.hf.views import pictures
from painting import change, embeddings, near_sighted, picture

EASEL = pytest.mark.parametrize("easel", EASELS, ids=str)
# processors of transformers hand tensors to NumPy in a way that it gives up
pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")
SIZES = [(120, 90), (90, 120), (131, 77), (60, 200), (100, 100), (57, 41)]  # width, height
DOTS = 8  # tokens painted per picture and size


def dot(view, size, row, column):
    """Return the middle of a token's part of a picture in pixels, None if it is not on it."""
    left, top, right, bottom = view.cell(row, column)
    left, right = (at * size[0] for at in (left, right))
    top, bottom = (at * size[1] for at in (top, bottom))
    across, down = (right - left) / 4, (bottom - top) / 4
    box = (left + across, top + down, right - across, bottom - down)
    inside = box[0] >= 0 and box[1] >= 0 and box[2] <= size[0] and box[3] <= size[1]
    return box if inside else None


def touched(view, size, box):
    """Return the positions of a view's tokens whose part of the picture a box lies on."""
    found = set()
    for row in range(view.rows):
        for column in range(view.columns):
            left, top, right, bottom = view.cell(row, column)
            beside = right * size[0] <= box[0] or left * size[0] >= box[2]
            if not (beside or bottom * size[1] <= box[1] or top * size[1] >= box[3]):
                found.add(view.positions[row][column])
    return found


def painted(name, found, size):
    """Choose tokens of a picture by chance: the view, its position, and what to paint."""
    cells = [
        (view, view.positions[row][column], dot(view, size, row, column))
        for view in found.views
        for row in range(view.rows)
        for column in range(view.columns)
    ]
    cells = [cell for cell in cells if cell[2] is not None]
    return random.Random(f"{name} {size}").sample(cells, min(DOTS, len(cells)))


@EASEL
def test_what_is_painted_is_where_it_is_said_to_be(easel):
    made, model = easel.processor(), near_sighted(easel.build())
    how = getattr(made, "image_processor", None)
    for number, size in enumerate(SIZES):
        other = SIZES[number - 1]
        rows = [[other], [other, size]]  # of different length, so that one is padded
        plain = easel.prompts(made, [[picture(x) for x in row] for row in rows])
        before = embeddings(model, plain)
        found = pictures(model.config, plain, rows[1], 1, processor=how)
        assert [one.size for one in found] == rows[1]
        for view, position, box in painted(easel.name, found[1], size):
            marked = easel.prompts(made, [[picture(other)], [picture(other), picture(size, box)]])
            assert torch.equal(marked["input_ids"], plain["input_ids"])
            moved = change(model, before, marked)
            assert not moved[0].any()
            places = {at for one in found[1].views for row in one.positions for at in row}
            assert set(moved[1].nonzero().flatten().tolist()) <= places
            clear = moved[1, position]
            for one in found[1].views:
                here = [at for row in one.positions for at in row]
                least = max(moved[1, here].max(), clear) / 2  # resizing leaves traces around a box
                strongly = {at for at in here if moved[1, at] > least}
                assert strongly <= touched(one, size, box), (size, one.name)
                if one is view:
                    assert strongly == {position}, (size, one.name)

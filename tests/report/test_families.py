"""Pages of real processors and tiny models: every visual token is where its family puts it."""

import copy

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from easels import EASELS
from foveate.cli.models import Loaded
from foveate.report import collect
from foveate.report.bits import packed

SIZE = (131, 77)
# processors of transformers hand tensors to NumPy in a way that it gives up
pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")


def compared(easel, image):
    """What one method makes of a picture, as plain values."""
    made = easel.processor()
    return collect(
        Loaded(easel.name, easel.build().eval(), made), [image], "w10", ["random"], [0.5],
        inputs=easel.prompts(made, [[image]]), max_new_tokens=1, measured=False,
    ).to_dict()  # fmt: skip


# the embedded model is everywhere else, and stand-ins for processors that need more cannot decode
REAL = [one for one in EASELS if one.name not in ("embedded", "llava-pixtral", "mistral3")]


@pytest.mark.parametrize("easel", REAL, ids=str)
def test_every_token_has_one_place(easel):
    values = compared(easel, Image.new("RGB", SIZE, "white"))
    assert values["notes"] == ()
    (picture,) = values["pictures"]
    cells = [
        cell for sheet in picture["sheets"] for view in sheet["views"] for cell in view["cells"]
    ]
    found = [cell for cell in cells if cell >= 0]
    assert len(set(found)) == len(found) > 0
    assert {0 <= cell < values["visual"] for cell in found} == {True}
    told = [piece for piece in values["prompt"] if "visual" in piece]
    placed = sum(piece["visual"] for piece in told if piece["picture"] == 0)
    assert placed == len(found)
    assert sum(piece["visual"] for piece in told) == values["visual"]


@pytest.mark.parametrize("name", ["idefics3", "internvl", "llava-next"])
def test_a_patch_painted_on_a_tile_shows_where_it_was(show, name):
    easel = next(easel for easel in EASELS if easel.name == name)
    sheets = compared(easel, Image.new("RGB", SIZE, "white"))["pictures"][0]["sheets"]
    number, sheet = max(enumerate(sheets), key=lambda pair: len(pair[1]["views"]))
    view = sheet["views"][-1]
    row, column = view["rows"] // 2, view["columns"] // 2
    left, top, right, bottom = rectangle(view, row, column)
    image = Image.new("RGB", SIZE, "white")
    edges = (left * SIZE[0], top * SIZE[1], right * SIZE[0] - 1, bottom * SIZE[1] - 1)
    ImageDraw.Draw(image).rectangle(edges, fill=(220, 0, 0))
    values = copy.deepcopy(compared(easel, image))
    run = values["runs"][0]
    marks = torch.zeros(len(run["layers"]), 1, values["visual"], dtype=torch.bool)
    marks[..., view["cells"][row * view["columns"] + column]] = True
    run |= {"heads": 1, "kept_visual": packed(marks)}
    opened = show(values)
    opened.change(method="random", budget="50 %", sheet=number)
    pixels = np.asarray(opened.shot(), int)
    red = (pixels[..., 0] > 190) & (pixels[..., 1] < 60) & (pixels[..., 2] < 60)
    assert red.any() and opened.said == []
    down, across = (axis.mean() / size for axis, size in zip(red.nonzero(), red.shape, strict=True))
    assert left < across < right and top < down < bottom


def rectangle(view, row, column):
    """The part of the picture that a cell stands for."""
    left, top, right, bottom = view["box"]
    wide, high = (right - left) / view["columns"], (bottom - top) / view["rows"]
    return (
        left + column * wide, top + row * high,
        left + (column + 1) * wide, top + (row + 1) * high,
    )  # fmt: skip

"""Where the visual tokens are on the picture, for every family whose processor lets us know."""

from types import SimpleNamespace

import pytest
import torch

from families import BY_NAME, IMAGE
from foveate.calibration.boxes import Stated
from foveate.errors import InputError
from foveate.hf.views.cells import picture_cells
from foveate.hf.views.tiles import _covering

# Token counts of a grid, and how many visual tokens come before it, for image 0 of each family.
GRIDS = {
    "qwen2-vl": (4, 5, 0),
    "qwen2.5-vl": (4, 5, 0),
    "qwen3-vl": (4, 5, 0),
    "llava-1.5": (4, 4, 0),
    "llava-next": (6, 8, 16),
    "llava-onevision": (6, 8, 16),
    "gemma3": (4, 4, 0),
    "mistral3": (4, 5, 0),
}


STRETCHED, CUT = (SimpleNamespace(do_center_crop=cut) for cut in (False, True))


def prepared(name, size=(60, 50), processor=STRETCHED, **options):
    """Return a family's cells for its first image, and the positions of all visual tokens."""
    family = BY_NAME[name]
    inputs = family.inputs(1)
    visual = (inputs["input_ids"][0] == IMAGE).nonzero().flatten().tolist()
    return picture_cells(family.config(), inputs, size, processor=processor, **options), visual


@pytest.mark.parametrize("name", GRIDS)
def test_known_grids(name):
    cells, visual = prepared(name)
    rows, columns, before = GRIDS[name]
    assert (len(cells), len(cells[0])) == (rows, columns)
    gap = 1 if before else 0  # the any-resolution families end rows with a mark
    expected = [
        visual[before + y * (columns + gap) + x] for y in range(rows) for x in range(columns)
    ]
    assert [position for row in cells for position in row] == expected


@pytest.mark.parametrize("name", ["internvl", "idefics3", "smolvlm"])
def test_tiles_lie_beside_each_other(name):
    cells, visual = prepared(name)  # four tiles of 2 x 2 tokens, then the view of the whole
    tile = [visual[4 * i : 4 * i + 4] for i in range(4)]
    assert [list(row) for row in cells] == [
        [*tile[0][:2], *tile[1][:2]],
        [*tile[0][2:], *tile[1][2:]],
        [*tile[2][:2], *tile[3][:2]],
        [*tile[2][2:], *tile[3][2:]],
    ]
    wide, _ = prepared(name, size=(400, 90))
    tall, _ = prepared(name, size=(90, 400))
    assert (len(wide), len(wide[0])) == (2, 8)
    assert (len(tall), len(tall[0])) == (8, 2)
    assert list(wide[0]) == [position for one in tile for position in one[:2]]


def test_a_stated_grid_comes_first():
    cells, visual = prepared("internvl", stated=Stated.parse("2x2@-4"))
    assert cells == (tuple(visual[-4:-2]), tuple(visual[-2:]))
    cells, visual = prepared("llava-next", stated=Stated.parse("6x8+1@16"))
    assert cells == prepared("llava-next")[0]
    with pytest.raises(InputError, match=r"from number 16 to 87.*has 70"):
        prepared("llava-next", stated=Stated.parse("8x8+1@16"))
    with pytest.raises(InputError, match="from number -3"):
        prepared("llava-1.5", stated=Stated.parse("2x2@-19"))


@pytest.mark.parametrize("words", ["", "24", "0x4", "4x0", "axb", "4x4@", "4x4+", "-4x4"])
def test_words_that_are_no_grid(words):
    with pytest.raises(InputError, match="is not a grid"):
        Stated.parse(words)


def test_unknown_places_are_named():
    family = BY_NAME["llava-1.5"]
    config, inputs = family.config(), family.inputs(1)
    config.image_seq_length = 25
    with pytest.raises(InputError, match=r"16 placeholders.*pictures of 25 tokens.*--grid"):
        picture_cells(config, inputs, (50, 50))
    with pytest.raises(InputError, match=r"cuts pictures to a square.*this one has 60 x 50"):
        prepared("llava-1.5", processor=CUT)
    assert prepared("llava-1.5", size=(50, 50), processor=CUT)
    assert prepared("llava-next", processor=CUT)  # its tiles are square before they are cut
    inputs["input_ids"] = torch.full_like(inputs["input_ids"], 7)
    with pytest.raises(InputError, match="none of the picture's placeholders"):
        picture_cells(config, inputs, (50, 50))


def test_how_many_tiles_lie_side_by_side():
    assert [_covering(12, size) for size in ((347, 180), (180, 347))] == [4, 3]
    assert [_covering(8, size) for size in ((590, 157), (157, 590))] == [4, 2]

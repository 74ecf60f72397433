"""Boxes against real image processors: the tokens whose pixels a box changes are its region."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from transformers.image_processing_utils import select_best_resolution
from transformers.models.llava_next.modeling_llava_next import unpad_image
from transformers.models.llava_next.processing_llava_next import LlavaNextProcessor

from families import BY_NAME, IMAGE
from families.base import MARK
from families.llava import PINPOINTS, SIDE, _Count
from foveate.calibration.boxes import region
from foveate.hf.views.cells import picture_cells

SIZES = [(120, 90), (90, 120), (131, 77), (60, 200), (100, 100), (219, 170)]  # width, height
BOXES = [(0.1, 0.1, 0.45, 0.3), (0.55, 0.5, 0.9, 0.95), (0.3, 0.0, 0.6, 1.0)]


def processor(family, name, **settings):
    """Return an image processor that needs nothing but Pillow, or skip where there is none."""
    module = f"transformers.models.{family}.image_processing_pil_{family}"
    return getattr(pytest.importorskip(module), name)(**settings)


def pictures(size, box):
    """Return a grey picture, and the same with a black box on it."""
    plain = Image.new("RGB", size, (220, 220, 220))
    marked = plain.copy()
    ImageDraw.Draw(marked).rectangle(box, fill=(0, 0, 0))
    return plain, marked


def pixels(values):
    """Return how much every pixel differs between two processed pictures, channels averaged."""
    plain, marked = (np.asarray(one, dtype=np.float32) for one in values)
    return np.abs(plain - marked)


def qwen(size, box):
    """Return the change of every 2 x 2 patches, and the cells."""
    me = processor(
        "qwen2_vl", "Qwen2VLImageProcessorPil", patch_size=4, min_pixels=64, max_pixels=64**2
    )
    done = [me([one], return_tensors="np") for one in pictures(size, box)]
    grid = torch.as_tensor(done[0]["image_grid_thw"])
    _, h, w = grid[0].tolist()
    change = pixels([one["pixel_values"] for one in done]).mean(-1).reshape(-1, 4).mean(-1)
    ids = torch.tensor([[5] * 3 + [IMAGE] * len(change) + [6]])
    inputs = {"input_ids": ids, "image_grid_thw": grid}
    return change.reshape(h // 2, w // 2), inputs, BY_NAME["qwen2-vl"].config()


def llava_next(size, box):
    """Return the change of every patch of the detailed view without its border."""
    me = processor(
        "llava_next",
        "LlavaNextImageProcessorPil",
        size={"shortest_edge": 28},
        crop_size={"height": 28, "width": 28},
        image_grid_pinpoints=PINPOINTS,
    )
    done = [me([one], return_tensors="np") for one in pictures(size, box)]
    tiles = pixels([one["pixel_values"][0, 1:] for one in done]).mean(1)
    height, width = (int(x) for x in done[0]["image_sizes"][0])
    down, across = (x // 28 for x in select_best_resolution((height, width), PINPOINTS))
    whole = tiles[: down * across].reshape(down, across, 28, 28).swapaxes(1, 2)
    change = whole.reshape(down * SIDE, 7, across * SIDE, 7).mean((1, 3))
    change = unpad_image(torch.tensor(change)[None], (height, width))[0].numpy()
    counted = LlavaNextProcessor._get_unpadded_features(
        _Count(), height, width, SIDE, SIDE, down, across
    )
    ids = torch.tensor([[5] * 3 + [IMAGE] * (sum(counted) + SIDE**2) + [6]])
    inputs = {"input_ids": ids, "image_sizes": torch.tensor([[height, width]])}
    return change, inputs, BY_NAME["llava-next"].config()


def idefics3(size, box):
    """Return the change of every half tile."""
    me = processor(
        "idefics3",
        "Idefics3ImageProcessorPil",
        size={"longest_edge": 84},
        max_image_size={"longest_edge": 28},
    )
    done = [
        me([[one]], return_row_col_info=True, return_tensors="np") for one in pictures(size, box)
    ]
    down, across = done[0]["rows"][0][0], done[0]["cols"][0][0]
    tiles = pixels([one["pixel_values"][0] for one in done]).mean(1)[:-1]
    whole = tiles.reshape(down, across, 28, 28).swapaxes(1, 2)
    change = whole.reshape(down * 2, 14, across * 2, 14).mean((1, 3))
    ids = torch.tensor([[5, *[MARK, *[IMAGE] * 4] * (down * across + 1), 6]])
    return change, {"input_ids": ids}, BY_NAME["idefics3"].config()


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("family", [qwen, llava_next, idefics3])
def test_what_a_box_changes_is_its_region(family, size, box):
    corners = tuple(int(share * pixels) for share, pixels in zip(box, size * 2, strict=True))
    change, inputs, config = family(size, corners)
    cells = picture_cells(config, inputs, size)
    assert (len(cells), len(cells[0])) == change.shape
    inside = region(cells, size, corners)
    strongly = change > 0.35 * change.max()
    slightly = change > 0.001 * change.max()
    for y, row in enumerate(cells):
        for x, position in enumerate(row):
            assert position in inside or not strongly[y, x]
            around = slightly[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
            assert position not in inside or around.any()
    assert strongly.any()

"""Frames of videos, whose processors need torchvision: tiny models with pixels made by hand."""

import pytest
import torch

from families import BY_NAME, IMAGE, Family
from families.base import MARK, VIDEO, VISION_END, VISION_START, pixels
from families.llava import PINPOINTS, fixed
from foveate.errors import InputError
from foveate.hf.views import pictures
from painting import embeddings, near_sighted

GRID = (3, 4, 6)  # groups of two frames, rows and columns of patches, of which 2 x 2 are a token
QWEN = pytest.mark.parametrize("name", ["qwen2-vl", "qwen2.5-vl", "qwen3-vl"])


def batch(family, *rows):
    """Return ids and mask of rows, padded on the left, and what the family wants beside them."""
    length = max(map(len, rows))
    ids = torch.tensor([[0] * (length - len(row)) + row for row in rows])
    kinds = (ids == IMAGE).long() + 2 * (ids == VIDEO).long()
    return {"input_ids": ids, "attention_mask": (ids != 0).long(), "mm_token_type_ids": kinds}


def accepted(model, inputs):
    """Return the inputs that a model takes in this release."""
    import inspect

    names = inspect.signature(model.forward).parameters
    return {name: value for name, value in inputs.items() if name in names}


def frames(name):
    """Return the ids of a video of Qwen-VL: one run, or with Qwen3-VL one behind each time."""
    each = [VIDEO] * 6
    if name != "qwen3-vl":
        return [VISION_START, *each * 3, VISION_END]
    return [token for time in (11, 12, 13) for token in (time, VISION_START, *each, VISION_END)]


@QWEN
def test_qwen_groups_of_frames_beside_a_picture(name):
    family = BY_NAME[name]
    model = near_sighted(family.build())
    picture = [VISION_START, *[IMAGE] * 4, VISION_END]
    inputs = batch(family, [7, 8, *picture, 9], [7, *picture, 8, *frames(name), 9, 10])
    rng = torch.Generator().manual_seed(1)
    inputs |= {
        "pixel_values": pixels((32, 96), rng),
        "image_grid_thw": torch.tensor([[1, 4, 4], [1, 4, 4]]),
        "pixel_values_videos": pixels((72, 96), rng),
        "video_grid_thw": torch.tensor([GRID]),
        "second_per_grid_ts": torch.tensor([0.5]),
    }
    first, video = pictures(family.config(), inputs, [(40, 40)], 1)
    assert (first.video, video.video) == (False, True)
    assert (first.size, video.size) == ((40, 40), None)
    assert [view.name for view in video.views] == ["frames 1-2", "frames 3-4", "frames 5-6"]
    assert [view.frames for view in video.views] == [(0, 1), (2, 3), (4, 5)]
    assert [view.seconds for view in video.views] == [(0.0, 0.5), (0.5, 1.0), (1.0, 1.5)]
    assert pictures(family.config(), inputs)[0].views[0].positions[0][0] > 7  # padded
    del inputs["second_per_grid_ts"]  # which some releases count for pictures, too
    before = embeddings(model, accepted(model, inputs))
    for group, row, column in ((0, 0, 0), (1, 1, 2), (2, 0, 1), (2, 1, 0)):
        token = group * 6 + row * 3 + column  # patches come in blocks of a token
        marked = inputs["pixel_values_videos"].clone()
        marked[4 * token : 4 * token + 4] += 1
        after = embeddings(model, accepted(model, inputs | {"pixel_values_videos": marked}))
        moved = (after - before).norm(dim=-1)
        assert moved.nonzero().tolist() == [[1, video.views[group].positions[row][column]]]


def next_video():
    """Return the config of a LLaVA-NeXT-Video, which pools 2 x 2 of 4 x 4 patches."""
    return BY_NAME["llava-next"].settings() | {
        "video_token_index": VIDEO, "image_grid_pinpoints": PINPOINTS, "spatial_pool_stride": 2,
        "spatial_pool_mode": "average",
    }  # fmt: skip


LLAVA = [
    (BY_NAME["llava-onevision"], 1),
    (Family("llava-next-video", "llava_next_video", next_video, fixed), 0),
]


@pytest.mark.parametrize(("family", "marks"), LLAVA, ids=lambda value: str(value))
def test_llava_pooled_frames(family, marks):
    model = near_sighted(family.build())
    video = [VIDEO] * (3 * 4 + marks)  # 2 x 2 tokens a frame
    inputs = batch(family, [7, *video, 8, 9], [7, 8, 9, *video, MARK, 6])
    pixel = torch.zeros(2, 3, 3, 28, 28)
    inputs["pixel_values_videos"] = pixel
    before = embeddings(model, accepted(model, inputs))
    for row in (0, 1):
        (found,) = pictures(family.config(), inputs, row=row)
        assert found.video and [view.frames for view in found.views] == [(0, 0), (1, 1), (2, 2)]
        for frame, y, x in ((0, 0, 1), (1, 1, 0), (2, 1, 1)):
            marked = pixel.clone()
            marked[row, frame, :, 14 * y + 3 : 14 * y + 11, 14 * x + 3 : 14 * x + 11] = 2
            after = embeddings(model, accepted(model, inputs | {"pixel_values_videos": marked}))
            moved = (after - before).norm(
                dim=-1
            )  # old releases look at the last layer's own output
            strongly = (moved > moved.max() / 2).nonzero().tolist()
            assert strongly == [[row, found.views[frame].positions[y][x]]]


def test_frames_of_internvl_are_pictures_one_by_one():
    family = BY_NAME["internvl"]
    ids = [7, *[token for _ in range(3) for token in (VISION_START, *[IMAGE] * 4, VISION_END, 8)]]
    found = pictures(family.config(), batch(family, ids))
    assert [[view.name for view in one.views] for one in found] == [["whole"]] * 3
    assert [one.views[0].positions[0][0] for one in found] == [2, 9, 16]


def test_videos_that_cannot_be_placed():
    family = LLAVA[0][0]
    with pytest.raises(InputError, match="a video of 12 placeholders is no whole number of frames"):
        pictures(family.config(), batch(family, [7, *[VIDEO] * 12, 8]))
    qwen = BY_NAME["qwen2-vl"]
    with pytest.raises(InputError, match="no video_grid_thw came"):
        pictures(qwen.config(), batch(qwen, [7, *[VIDEO] * 12, 8]))

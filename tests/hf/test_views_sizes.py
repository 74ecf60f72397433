"""Pictures of any size: what `pictures` says agrees with the arithmetic of the real processors."""

import importlib
import random
import re
from types import SimpleNamespace

import pytest
import torch

from families import BY_NAME, IMAGE, VOCAB
from foveate.errors import InputError
from foveate.hf.views import pictures

CHANCE = random.Random(20261)
SIZES = [(CHANCE.randint(30, 3000), CHANCE.randint(30, 3000)) for _ in range(150)]
SIZES += [(500, 400), (400, 500), (448, 448), (1000, 1000), (3000, 30), (30, 3000), (672, 448)]


def found_in(*places):
    """Return a name of transformers from the first place that needs no torchvision."""
    for module, name in places:
        try:
            return getattr(importlib.import_module(f"transformers.models.{module}"), name)
        except (ImportError, AttributeError):
            continue
    pytest.skip(f"{places[0][1]} needs torchvision in this transformers")


def prompt(*counts):
    """Return ids with runs of so many placeholders."""
    ids = [5]
    for count in counts:
        ids += [IMAGE] * count + [6]
    return torch.tensor([ids])


def config(model, tile, patch, **values):
    """Return what `pictures` reads of a checkpoint's config."""
    tower = SimpleNamespace(image_size=tile, patch_size=patch)
    return SimpleNamespace(model_type=model, vision_config=tower, image_token_id=IMAGE, **values)


def test_internvl_arranges_its_tiles_as_its_processor_does():
    canvas = found_in(
        ("got_ocr2.image_processing_pil_got_ocr2", "get_optimal_tiled_canvas"),
        ("got_ocr2.image_processing_got_ocr2", "get_optimal_tiled_canvas"),
    )
    settings = config("internvl", [448, 448], [14, 14], image_seq_length=256)
    ties = [(side * across, side * down) for side in (100, 500) for across, down in
            ((5, 4), (3, 4), (13, 12), (5, 3), (29, 20))]  # fmt: skip
    for size in SIZES + ties:
        across, down = canvas(size[::-1], (448, 448), 1, 12)
        tiles = across * down
        ids = prompt(256 * (tiles + (tiles > 1)))
        (picture,) = pictures(settings, {"input_ids": ids}, [size])
        boxes = [view.box for view in picture.views if view.name != "whole"]
        if tiles == 1:
            assert not boxes
        assert boxes == [
            (x / across, y / down, (x + 1) / across, (y + 1) / down)
            for y in range(down)
            for x in range(across)
            if tiles > 1
        ], size


NEXT = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
ONEVISION = [[384 * y, 384 * x] for y in range(1, 7) for x in range(1, 7)]


@pytest.mark.parametrize(
    ("model", "name", "tile", "pinpoints", "aspect"),
    [
        ("llava_next", "LlavaNextProcessor", 336, NEXT, None),
        ("llava_onevision", "LlavaOnevisionProcessor", 384, ONEVISION, "anyres_max_9"),
    ],
)
def test_any_resolution_counts_as_its_processor_does(model, name, tile, pinpoints, aspect):
    from transformers.image_processing_utils import select_best_resolution

    features = found_in((f"{model}.processing_{model}", name))._get_unpadded_features
    me, side = SimpleNamespace(vision_aspect_ratio=aspect), tile // 14
    settings = config(model, tile, 14, image_grid_pinpoints=pinpoints, vision_aspect_ratio=aspect)
    for width, height in SIZES:
        best = select_best_resolution((height, width), pinpoints)
        scale = (best[0] // tile, best[1] // tile)
        tokens, marks = features(me, height, width, side, side, *scale)
        inputs = {"input_ids": prompt(side**2 + tokens + marks)}
        inputs["image_sizes"] = torch.tensor([[height, width]])
        (picture,) = pictures(settings, inputs)
        detail = picture.views[-1]
        if not tokens:
            assert detail.name == "whole"
            continue
        assert (detail.rows, detail.rows * detail.columns) == (marks, tokens)
        assert picture.size == (width, height)
        left, top, right, bottom = detail.cell(0, 0)
        assert abs(left) < 1.1 * (right - left) and abs(top) < 1.1 * (bottom - top)
        left, top, right, bottom = detail.cell(detail.rows - 1, detail.columns - 1)
        assert abs(1 - right) < 1.1 * (right - left) and abs(1 - bottom) < 1.1 * (bottom - top)


def written(text):
    """Return ids of words, signs and line ends, so that the name of a tile is many of them."""
    known = {"<image>": IMAGE}
    pieces = re.findall(r"<fake_token_around_image>|<image>|\n+|[a-z]+|[^\s]", text)
    return [known.setdefault(piece, 7 + len(known)) for piece in pieces]


@pytest.mark.parametrize("model", ["idefics3", "smolvlm"])
def test_tiles_are_read_from_a_prompt_of_any_vocabulary(model):
    string = found_in(
        (f"{model}.processing_{model}", "get_image_prompt_string"),
        ("smolvlm.processing_smolvlm", "get_image_prompt_string"),  # which Idefics 3 took over
    )
    settings = config(model, 28, 7, scale_factor=2)
    grids = [(2, 3), (0, 0), (1, 4), (4, 1), (6, 6), (1, 2), (0, 0), (3, 2)]
    marks = ("<fake_token_around_image>", "<image>", "<global-img>")
    text = "look at " + " and ".join(string(*grid, 4, *marks) for grid in grids) + " what is it"
    ids = torch.tensor([written(text)])
    assert int(ids.max()) < VOCAB
    found = pictures(settings, {"input_ids": ids})
    assert len(found) == len(grids)
    visual = iter((ids[0] == IMAGE).nonzero().flatten().tolist())
    for picture, (rows, columns) in zip(found, grids, strict=True):
        tiles = [view for view in picture.views if view.name != "whole"]
        assert [view.box for view in tiles] == [
            (x / columns, y / rows, (x + 1) / columns, (y + 1) / rows)
            for y in range(rows)
            for x in range(columns)
        ]
        for view in picture.views:
            assert view.positions == tuple((next(visual), next(visual)) for _ in range(2))


def test_what_cannot_be_known_is_refused_with_the_reason():
    known = config("internvl", [28, 28], [7, 7], image_seq_length=4)
    with pytest.raises(InputError, match="depends on the size of a picture"):
        pictures(known, {"input_ids": prompt(12)})
    with pytest.raises(InputError, match="13 placeholders is no whole number of tiles of 4"):
        pictures(known, {"input_ids": prompt(13)})
    with pytest.raises(InputError, match="sizes of 1 pictures came, and the row has 2"):
        pictures(known, {"input_ids": prompt(4, 4)}, [(20, 20)])
    with pytest.raises(InputError, match="row 1 was asked for, and the prompt has 1 rows"):
        pictures(known, {"input_ids": prompt(4)}, row=1)
    with pytest.raises(InputError, match="no input_ids came"):
        pictures(known, {"inputs_embeds": torch.zeros(1, 3, 4)})
    with pytest.raises(InputError, match=r"aria are on an image or video is unknown.*internvl"):
        pictures(config("aria", 28, 7), {"input_ids": prompt(4)})
    with pytest.raises(InputError, match="no image_sizes came"):
        pictures(config("llava_next", 28, 7), {"input_ids": prompt(4)})
    with pytest.raises(InputError, match="no image_sizes came"):
        pictures(config("mistral3", 28, 7), {"input_ids": prompt(4)})
    with pytest.raises(InputError, match="image_seq_length=5 of the config is no square"):
        pictures(config("llava", 28, 7, image_seq_length=5), {"input_ids": prompt(5)})
    with pytest.raises(InputError, match="5 placeholders, and the config states pictures of 16"):
        pictures(config("paligemma", 28, 7), {"input_ids": prompt(5)})
    with pytest.raises(
        InputError, match="runs of 4, 5 placeholders, and a tile of this model has 4"
    ):
        pictures(config("idefics3", 28, 7, scale_factor=2), {"input_ids": prompt(4, 5)})
    family = BY_NAME["qwen2-vl"]
    inputs = family.inputs(3)
    inputs["image_grid_thw"] = inputs["image_grid_thw"].flip(0)
    with pytest.raises(
        InputError, match=r"image_grid_thw states pictures of .* tokens, and the rows"
    ):
        pictures(family.config(), inputs)


@pytest.mark.parametrize(
    ("settings", "size", "box"),
    [
        (None, (40, 20), (0.25, 0.0, 0.75, 1.0)),  # as checkpoints of the family do
        (None, (20, 40), (0.0, 0.25, 1.0, 0.75)),
        (None, None, (0.0, 0.0, 1.0, 1.0)),  # shares of what the model was shown
        ({"do_center_crop": False}, (40, 20), (0.0, 0.0, 1.0, 1.0)),
        ({"do_pad": True}, (40, 20), (0.0, -0.5, 1.0, 1.5)),
        (
            {"size": {"shortest_edge": 32}, "crop_size": {"height": 28, "width": 28}},
            (64, 32),
            (0.28125, 0.0625, 0.71875, 0.9375),
        ),
    ],
)
def test_what_is_cut_out_of_a_picture(settings, size, box):
    how = None if settings is None else SimpleNamespace(**settings)
    sizes = None if size is None else [size]
    known, inputs = config("llava", 28, 7), {"input_ids": prompt(16)}
    (found,) = pictures(known, inputs, sizes, processor=how)
    assert found.views[0].box == box and found.size == size


def test_a_row_without_pictures_has_none():
    known = config("internvl", [28, 28], [7, 7], image_seq_length=4)
    assert pictures(known, {"input_ids": prompt()}) == ()

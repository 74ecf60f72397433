"""What a notebook shows: patches clear where they are kept, faded where not, in PNG."""

import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

import foveate
from foveate.cli import answers
from foveate.errors import CacheError, InputError
from foveate.picture import Picture, View

ROWS, COLUMNS = 11, 13


@pytest.fixture(scope="module")
def session(loaded, sheet):
    inputs = answers.prepare(loaded, sheet.pages, sheet.questions[1].text)
    with foveate.compress(loaded.model, foveate.snapkv(keep=0.2)) as session:
        loaded.model.generate(**inputs, max_new_tokens=2, do_sample=False)
    return session


def patch(image, row, column):
    """The middle of a patch, away from lines around it."""
    high, wide = image.height / ROWS, image.width / COLUMNS
    box = (column * wide + 6, row * high + 6, (column + 1) * wide - 6, (row + 1) * high - 6)
    return np.asarray(image.crop(tuple(map(round, box))), float)


def test_kept_patches_are_the_picture_and_others_are_not(session, sheet):
    (page,) = sheet.pages
    layer, head = 3, 1
    shown = session.report.show([page], layer=layer, head=head).image
    (view,) = session.report.pictures()[0].views
    kept = set(session.report.kept(layer, 0, head).tolist())
    clear = page.resize(shown.size, Image.Resampling.LANCZOS)
    held = 0
    for row in range(ROWS):
        for column in range(COLUMNS):
            same = np.allclose(patch(shown, row, column), patch(clear, row, column), atol=1)
            assert same == (view.positions[row][column] in kept), (row, column)
            held += same
    assert 0 < held < ROWS * COLUMNS


def test_without_images_it_is_a_grid_of_grey(session):
    shown = session.report.show(layer=3, head=1)
    pixels = np.asarray(shown.image)
    (view,) = session.report.pictures()[0].views
    kept = set(session.report.kept(3, 0, 1).tolist())
    means = {True: [], False: []}
    for row, line in enumerate(view.positions):
        for column, position in enumerate(line):
            means[position in kept].append(patch(shown.image, row, column).mean())
    assert max(means[True]) < min(means[False])
    assert pixels.shape[1] == pytest.approx(448 * COLUMNS / ROWS, abs=1)


def test_patches_are_as_clear_as_many_layers_and_heads_keep_them(session):
    report = session.report
    shown = report.show().image
    (view,) = report.pictures()[0].views
    by_share = {}
    for row, line in enumerate(view.positions):
        for column, position in enumerate(line):
            share = sum(
                position in report.kept(layer, 0, head).tolist()
                for layer in range(len(report.layers))
                for head in range(2)
            )
            by_share.setdefault(share, []).append(patch(shown, row, column).mean())
    means = [np.mean(by_share[share]) for share in sorted(by_share)]
    assert len(means) > 4
    assert means == sorted(means, reverse=True)  # grey on white: the more layers, the darker


def test_notebooks_get_a_png(session, tmp_path):
    shown = session.report.show()
    image = Image.open(io.BytesIO(shown._repr_png_()))
    assert (image.format, image.size) == ("PNG", shown.image.size)
    shown.save(tmp_path / "kept.png")
    with Image.open(tmp_path / "kept.png") as saved:
        assert saved.size == image.size
    assert "1 picture" in repr(shown)


def test_unknown_heads_and_layers_are_refused(session):
    with pytest.raises(InputError, match="head 2 came"):
        session.report.show(head=2)
    with pytest.raises(InputError, match="layer 99"):
        session.report.show(layer=99)


def test_nothing_was_generated_yet(loaded):
    with foveate.compress(loaded.model, "snapkv", keep=0.2) as session, pytest.raises(CacheError):
        _ = session.report
    cache = foveate.CompressedCache(loaded.model, foveate.snapkv(keep=0.2))
    with pytest.raises(InputError, match="nothing has passed"):
        cache.report().show()


def test_a_prompt_of_text_has_nothing_to_show(loaded):
    inputs = loaded.processor(text="ABC?", return_tensors="pt")
    with foveate.compress(loaded.model, foveate.snapkv(keep=0.2)) as session:
        loaded.model.generate(**inputs, max_new_tokens=1, do_sample=False)
    with pytest.raises(InputError, match="no pictures"):
        session.report.show()


def test_many_and_wide_pictures_stay_small(loaded):
    pictures = [Image.new("RGB", size, "white") for size in ((1600, 16), (64, 64), (640, 64))]
    inputs = answers.prepare(loaded, pictures, "AB?")
    with foveate.compress(loaded.model, foveate.random(keep=0.2)) as session:
        loaded.model.generate(**inputs, max_new_tokens=1, do_sample=False)
    shown = session.report.show(pictures).image
    heights = (18, 448, 179)  # a banner, a square, and what is ten times as wide, in rows of 1792
    assert shown.size == (1792, sum(heights) + 2 * 12)


def test_a_picture_behind_a_video_is_drawn_on(session):
    class Scene:
        def pictures(self, row, sizes, processor):
            grid = ((0, 1), (2, 3))
            return Picture((View("whole", grid),), video=True), Picture((View("whole", grid),))

    report = dataclasses.replace(session.report, _scene=Scene())
    shown = report.show([Image.new("RGB", (64, 64), "red")]).image
    pixels = np.asarray(shown, int)
    red = (pixels[..., 0] - pixels[..., 1]) > 40
    assert not red[:, :448].any() and red[:, 460:].any()


def test_pages_of_many_patches_are_drawn_larger(loaded):
    page = Image.new("RGB", (20 * 16, 28 * 16), "white")
    inputs = answers.prepare(loaded, [page], "AB?")
    with foveate.compress(loaded.model, foveate.random(keep=0.2)) as session:
        loaded.model.generate(**inputs, max_new_tokens=1, do_sample=False)
    for shown in (session.report.show([page]), session.report.show()):
        assert shown.image.size == (20 * 24, 28 * 24)

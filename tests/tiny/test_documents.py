"""The documents hold what they are asked for, on every machine alike."""

import hashlib

import numpy as np
import pytest
from PIL import Image

from foveate.errors import InputError
from foveate.tiny import document, glyphs
from foveate.tiny.layouts import LAYOUTS

SHAPES = [((16, 16), 1), ((24, 24), 1), ((7, 13), 3)]


def characters(drawn, question):
    """What stands in the question's cells."""
    text = "".join(drawn.lines[question.page])
    return "".join(text[cell] for cell in question.cells)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("grid", "pages"), SHAPES)
def test_the_cells_hold_key_and_answer(layout, grid, pages):
    for seed in range(5):
        drawn = document(seed, layout=layout, grid=grid, pages=pages, skills=("lookup", "row"))
        for question in drawn.questions:
            key = question.text[:-1]
            assert characters(drawn, question) == key + question.answer.replace(" ", "")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_counts_are_right_and_their_cells_hold_the_initials(layout):
    for seed in range(9):
        drawn = document(seed, layout=layout, initials=4, skills=("lookup", "count"))
        keys = [q.text for q in drawn.questions if q.skill == "lookup"]
        for question in (q for q in drawn.questions if q.skill == "count"):
            initial = question.text[0]
            assert question.answer == str(sum(key[0] == initial for key in keys))
            assert characters(drawn, question) == initial * len(question.cells)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_picture_shows_the_characters(layout):
    drawn = document(3, layout=layout, grid=(7, 13))
    assert drawn.pages[0].size == (13 * 16, 7 * 16)
    pixels = np.asarray(drawn.pages[0]).astype(int)
    for index, character in enumerate("".join(drawn.lines[0])):
        row, column = divmod(index, 13)
        cell = pixels[16 * row : 16 * row + 16, 16 * column : 16 * column + 16]
        spread = np.abs(cell - cell[0, 0]).sum(-1)
        if character == " ":
            assert spread.max() == 0
        else:
            ink = spread / spread.max()
            drawings = glyphs.atlas()[:, glyphs.GLYPH[character]] / 255.0
            assert np.abs(drawings - ink).mean(axis=(1, 2)).min() < 0.02


def test_a_seed_gives_the_same_document_everywhere():
    digest = hashlib.sha256()
    for layout in LAYOUTS:
        drawn = document(11, layout=layout, grid=(11, 17), pages=2)
        digest.update(repr((drawn.lines, drawn.questions)).encode())
    assert digest.hexdigest()[:16] == "ea9e05b0f89b0e2a"


def test_a_seed_gives_the_same_pixels():
    first, second = document(5), document(5)
    assert first == second
    assert np.array_equal(np.asarray(first.pages[0]), np.asarray(second.pages[0]))
    assert first != document(6)


def test_keys_are_unique_over_all_pages_and_some_differ_by_a_letter():
    drawn = document(2, grid=(24, 24), pages=3, keys=(3, 3), density=1.0)
    keys = [q.text for q in drawn.questions]
    assert len(set(keys)) == len(keys) > 60
    near = [sum(a != b for a, b in zip(k, o, strict=True)) == 1 for k in keys for o in keys]
    assert sum(near) > 10
    assert {q.page for q in drawn.questions} == {0, 1, 2}


def test_evidence_counts_over_all_pages():
    drawn = document(4, grid=(5, 16), pages=2, density=1.0)
    question = next(q for q in drawn.questions if q.page == 1)
    assert drawn.evidence(question) == tuple(80 + cell for cell in question.cells)


def test_values_of_a_receipt_may_have_a_point():
    answers = [q.answer for seed in range(9) for q in document(seed, layout="receipt").questions]
    assert any("." in answer for answer in answers)
    assert max(map(len, answers)) == 6


def test_the_atlas_fits_its_cells():
    atlas = glyphs.atlas()
    assert atlas.shape == (54, 1 + len(glyphs.DRAWN), 16, 16)
    assert atlas[:, 0].max() == 0
    assert (atlas[:, 1:].reshape(54, len(glyphs.DRAWN), -1).max(-1) > 200).all()


def test_an_unknown_layout_is_refused():
    with pytest.raises(InputError, match="layouts are rows, columns, receipt, table"):
        document(0, layout="poster")


def test_pages_are_pictures():
    assert all(isinstance(p, Image.Image) and p.mode == "RGB" for p in document(0, pages=2).pages)

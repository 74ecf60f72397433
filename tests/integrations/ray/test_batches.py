"""Batches answer what their rows answer alone; a bad row is an error in its own column."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import foveate
from foveate.errors import InputError, MethodError
from foveate.eval.asking.answering import Answerer
from foveate.integrations.ray import BatchGenerator

from .conftest import KEEP, METHOD, TOKENS, ask, batch, pages, png

GIVEN = {"keep": KEEP, "max_new_tokens": TOKENS, "device": "cpu"}
FOUND = ("answer", "kept", "bytes_stored", "bytes_full", "error")


@pytest.fixture(scope="module")
def generate():
    return BatchGenerator(None, METHOD, **GIVEN)


def test_rows_are_answered_as_one_by_one(generate, rows):
    found = generate(batch(rows.columns))
    assert len(set(rows.said)) > 3, "answers that differ"
    assert [*found["answer"]] == rows.said and not any(found["error"])
    assert [*found] == ["id", "question", *FOUND] and [*found["id"]] == rows.columns["id"]
    assert [*found["kept"]] == pytest.approx(rows.kept) and len(set(rows.kept)) > 3
    assert (found["bytes_stored"] < found["bytes_full"]).all()


def test_plain_lists_are_columns_too(generate, rows):
    assert [*generate(rows.columns)["answer"]] == rows.said


class Series(list):
    """A column of a data frame whose rows were sorted: labels are not places."""

    def __getitem__(self, label):
        return list(self)[-1 - label]


def test_columns_of_data_frames_are_read_in_order(generate, rows):
    series = {name: Series(column) for name, column in rows.columns.items()}
    assert [*generate(series)["answer"]] == rows.said


def test_pictures_may_come_in_any_form(generate, rows, loaded, tmp_path):
    page = pages(1)[0].pages[0].convert("RGB")
    data, text = png(page), rows.columns["question"][0]
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "page.png").write_bytes(data)
    page.convert("L").save(tmp_path / "grey.png")
    array = np.asarray(page)
    grey = np.asarray(page.convert("L"))
    images = [data, bytearray(data), memoryview(data), [data], np.array([data], object)]
    images += ["page.png", str(tmp_path / "images" / "page.png"), Path("page.png"), page, [page]]
    images += [{"bytes": data, "path": None}, {"bytes": None, "path": "page.png"}]
    images += [array, array[None], np.dstack([array, np.full_like(grey, 255)]), grey]
    images += [grey[..., None]]
    here = BatchGenerator(None, METHOD, folder=tmp_path, **GIVEN)
    found = here(batch({"image": images, "question": [text] * len(images)}))
    assert [*found["error"]] == [""] * len(images)
    assert set(found["answer"]) == {ask(loaded, [page], text)[0]}


def test_several_pictures_take_their_places_in_the_question(generate, loaded):
    first, second = (page.pages[0] for page in pages(2))
    text = pages(1)[0].questions[0].text
    both = [png(first), png(second)]
    stack = np.stack([np.asarray(one.convert("RGB").resize((56, 56))) for one in (first, second)])
    questions = [text, "<image><image>" + text, "<image>" * 3 + text, text]
    found = generate(batch({"image": [both, both, both, stack], "question": questions}))
    assert found["answer"][0] == found["answer"][1] == ask(loaded, [first, second], text)[0]
    assert "3 places for images, and there are 2" in found["error"][2]
    assert not found["error"][3]


CUT = object()
BAD = {
    "no image": ({"image": None}, "it has no image"),
    "an empty list": ({"image": []}, "it has no image"),
    "no picture": ({"image": b"GIF89a, or not"}, "not an image that Pillow can read"),
    "cut off": ({"image": CUT}, "damaged or cut off"),
    "an address": ({"image": "https://example.test/a.png"}, "download it"),
    "no file": ({"image": "nowhere.png"}, "there is no image nowhere.png"),
    "a name that is no UTF-8": ({"image": "caf\udce9.png"}, r"there is no image caf\udce9.png"),
    "a float array": ({"image": np.zeros((9, 9, 3))}, "array of 9 x 9 x 3, float64"),
    "two channels": ({"image": np.zeros((9, 9, 2), np.uint8)}, "9 x 9 x 2, uint8; give height"),
    "no pixels": ({"image": np.zeros((0, 9, 3), np.uint8)}, "array of 0 x 9 x 3"),
    "a number": ({"image": 3}, "its image is int"),
    "no question": ({"question": None}, "column question is empty"),
    "an empty question": ({"question": " "}, "column question is empty"),
    "nothing in a data frame": ({"question": float("nan")}, "column question is empty"),
    "a list": ({"question": ["ABC?"]}, "column question holds list"),
    "a picture without end": ({"image": Image.new("L", (20_000, 1))}, "200"),
}


def test_a_bad_row_takes_no_other_with_it(generate, rows):
    cut = rows.columns["image"][0][:-200]
    images, questions, bad = [], [], []
    for index, (changes, says) in enumerate(BAD.values()):
        good = index % 8
        row = {"image": rows.columns["image"][good], "question": rows.columns["question"][good]}
        for change in ({}, changes):
            image = {**row, **change}["image"]
            images.append(cut if image is CUT else image)
            questions.append({**row, **change}["question"])
        bad.append((2 * index, rows.said[good], says))
    found = generate(batch({"image": images, "question": questions}))
    for index, said, says in bad:
        assert (found["answer"][index], found["error"][index]) == (said, "")
        assert found["answer"][index + 1] == "" and says in found["error"][index + 1]
        assert math.isnan(found["kept"][index + 1])
        assert found["bytes_stored"][index + 1] == found["bytes_full"][index + 1] == 0


def test_types_are_the_same_whatever_is_in_a_batch(generate, rows):
    whole = generate(batch(rows.columns))
    none = generate(batch({name: cells[:0] for name, cells in rows.columns.items()}))
    bad = generate(batch({"id": [1], "image": [None], "question": ["ABC?"]}))
    for other in (none, bad):
        assert {name: other[name].dtype for name in FOUND} == {n: whole[n].dtype for n in FOUND}
    assert len(none["answer"]) == 0 and [type(one) for one in bad["error"]] == [str]


class Fussy:
    """Raises where a batch holds more than so many samples, or one that it dislikes."""

    def __init__(self, answers, most, disliked, error):
        self.answers, self.most, self.disliked, self.error = answers, most, disliked, error
        self.asked = []

    def __call__(self, answerer, task, samples, method):
        names = [sample.id for sample in samples]
        self.asked.append(len(names))
        if len(names) > self.most or self.disliked in names:
            raise self.error
        return self.answers(answerer, task, samples, method)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (torch.OutOfMemoryError("no room"), "OutOfMemoryError: no room"),
        (MethodError("a row that the method refuses"), "a row that the method refuses"),
    ],
)
def test_what_cannot_be_answered_together_is_answered_apart(
    generate, rows, monkeypatch, error, says
):
    fussy = Fussy(Answerer.answers, 3, "5", error)
    monkeypatch.setattr(Answerer, "answers", lambda *given: fussy(*given))
    found = generate(batch(rows.columns))
    assert [*found["error"]] == ["", "", "", "", "", says, "", ""]
    assert [*found["answer"]] == [*rows.said[:5], "", *rows.said[6:]]
    assert fussy.asked == [8, 4, 2, 2, 4, 2, 1, 1, 2]


def test_a_broken_accelerator_ends_the_process(generate, rows, monkeypatch):
    fussy = Fussy(Answerer.answers, 0, "", torch.AcceleratorError("illegal memory access"))
    monkeypatch.setattr(Answerer, "answers", lambda *given: fussy(*given))
    with pytest.raises(torch.AcceleratorError):
        generate(batch(rows.columns))
    assert fussy.asked == [8]


def test_a_prompt_of_ones_own_needs_no_question(rows, loaded):
    text = rows.columns["question"][0]
    generate = BatchGenerator(
        None, METHOD, image="page", prompt=text, prefix="its_", keep_images=True, **GIVEN
    )
    found = generate(batch({"page": rows.columns["image"][:2], "answer": ["a", "b"]}))
    assert [*found] == ["page", "answer", *("its_" + name for name in FOUND)]
    assert found["its_answer"][0] == rows.said[0] and [*found["answer"]] == ["a", "b"]


@pytest.mark.parametrize("method", [None, "full"])
def test_the_full_cache_keeps_everything(rows, method):
    found = BatchGenerator(None, method, max_new_tokens=TOKENS, device="cpu")(batch(rows.columns))
    assert [*found["kept"]] == [1.0] * 8
    assert (found["bytes_stored"] == found["bytes_full"]).all()


def test_a_method_may_come_whole_and_be_stored_otherwise(rows):
    given = {"max_new_tokens": TOKENS, "device": "cpu"}
    named = {"method": "adakv", "keep": KEEP, "options": {"alpha": 0.1}, **given}
    generators = (
        BatchGenerator(None, foveate.adakv(keep=KEEP, alpha=0.1), storage="ragged", **given),
        BatchGenerator(None, storage="ragged", **named),
        BatchGenerator(None, **named),
    )
    one, other, more = (generate(batch(rows.columns)) for generate in generators)
    assert [*one["answer"]] == [*other["answer"]] == [*more["answer"]]
    assert one["bytes_stored"].sum() < more["bytes_stored"].sum()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"method": "snapvk"}, "snapkv"),
        ({"method": "snapkv", "options": {"windw": 3}}, "windw"),
        ({"method": "snapkv", "keep": 0}, "keep"),
        ({"method": None, "keep": 0.1}, "beside the full cache"),
        ({"method": foveate.snapkv(), "keep": 0.1}, "beside a complete method"),
        ({"max_new_tokens": 0}, "give at least 1"),
        ({"storage": "static", "method": "h2o"}, "static"),
    ],
)
def test_what_is_wrong_from_the_start_is_said_at_the_start(words, says):
    with pytest.raises(InputError, match=says):
        BatchGenerator(None, **{"device": "cpu", **words})


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"image": [], "text": []}, "no column 'question'; the batch has 'image', 'text'"),
        ({"picture": [], "question": []}, "no column 'image'"),
        ({"image": [], "question": [], "error": []}, "a column 'error' already"),
    ],
)
def test_columns_that_do_not_fit_end_the_job(generate, columns, says):
    with pytest.raises(InputError, match=says):
        generate(batch(columns))
    with pytest.raises(InputError, match='batch_format="numpy"'):
        generate([columns])


def test_threads_are_those_that_were_asked_for():
    before = torch.get_num_threads()
    try:
        BatchGenerator(None, threads=2, device="cpu")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)

"""What a page is told: marks as the report has them, windows, words, and runs that fail."""

import base64
import json

import numpy as np
import pytest
import torch

import foveate
from foveate.cli import answers
from foveate.errors import InputError, MethodError
from foveate.eval.entry import Entry
from foveate.picture import Picture, View
from foveate.report import collect
from foveate.report.runs import Asked
from foveate.report.shown import told
from foveate.report.window import noting

ROWS, COLUMNS = 11, 13


def bits(text, *shape):
    """Unpack marks with numpy, as the page does by hand."""
    found = np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8), bitorder="little")
    assert not found[int(np.prod(shape)) :].any()
    return torch.from_numpy(found[: int(np.prod(shape))].reshape(shape)).bool()


def run_of(comparison, method, keep):
    return next(run for run in comparison.runs if (run["method"], run["keep"]) == (method, keep))


def compressed(loaded, sheet, method):
    inputs = answers.prepare(loaded, sheet.pages, sheet.questions[1].text)
    with foveate.compress(loaded.model, method) as session:
        loaded.model.generate(**inputs, max_new_tokens=8, do_sample=False)
    return inputs["input_ids"][0], session.report


@pytest.mark.parametrize(("name", "heads"), [("aircache", 1), ("snapkv", 2)])
def test_marks_are_what_the_report_says(loaded, sheet, comparison, name, heads):
    run = run_of(comparison, name, 0.1)
    ids, report = compressed(loaded, sheet, foveate.method(name, keep=0.1))
    visual = ids == loaded.processor.image_token_id
    marks = bits(run["kept_visual"], len(report.layers), heads, ROWS * COLUMNS)
    words = bits(run["kept_text"], len(report.layers), heads, len(ids) - ROWS * COLUMNS)
    assert run["heads"] == heads
    for layer in range(len(report.layers)):
        for head in range(heads):
            kept = torch.zeros(len(ids), dtype=torch.bool)
            kept[report.kept(layer, 0, head)] = True
            assert torch.equal(marks[layer, head], kept[visual])
            assert torch.equal(words[layer, head], kept[~visual])
    assert marks.sum() == run["visual_kept"] * heads * len(report.layers)


def test_everything_is_json(comparison):
    values = comparison.to_dict()
    assert json.dumps(values, allow_nan=False)
    assert [(run["method"], run["budget"]) for run in values["runs"]] == [
        (method, budget) for method in ("aircache", "snapkv") for budget in ("50 %", "10 %", "1 %")
    ]
    assert values["visual"] == ROWS * COLUMNS


def test_windows_are_as_large_as_the_method_says(loaded, sheet, comparison):
    run = run_of(comparison, "aircache", 0.1)
    words = sum("text" in piece for piece in comparison.prompt)
    members = bits(run["window"], len(run["layers"]), words)
    assert members.sum(-1).tolist() == [one["numbers"]["window"] for one in run["layers"]]
    assert not members[:, 0].any()  # what comes before the picture never observes


def test_noting_a_window_changes_nothing(loaded, sheet):
    method = foveate.snapkv(keep=0.1)
    watched, members = noting(method)
    assert watched != method and noting(foveate.knorm(keep=0.1))[0] == foveate.knorm(keep=0.1)
    _, plain = compressed(loaded, sheet, method)
    _, noted = compressed(loaded, sheet, watched)
    for layer in range(len(plain.layers)):
        assert torch.equal(plain.kept(layer, 0, 1), noted.kept(layer, 0, 1))
    assert sorted(members) == list(range(len(plain.layers)))


def test_methods_without_a_window_say_so(loaded, sheet):
    asked = sheet.questions[1].text
    found = collect(loaded, sheet.pages, asked, ["knorm"], [0.2], max_new_tokens=2, measured=False)
    assert found.runs[0]["window"] is None
    assert found.full["look"] is None and "fidelity" not in found.runs[0]


def test_prompts_are_told_piece_by_piece(loaded, sheet, comparison):
    visual = [piece for piece in comparison.prompt if "visual" in piece]
    text = "".join(piece["text"] for piece in comparison.prompt if not piece.get("special", True))
    assert visual == [{"visual": ROWS * COLUMNS, "picture": 0}]
    assert text == sheet.questions[1].text


def test_looks_are_shares_of_all_attention(comparison):
    look = comparison.full["look"]
    shades = np.frombuffer(base64.b64decode(look["shades"]), np.uint8).reshape(-1, ROWS * COLUMNS)
    for line, most, visual in zip(shades, look["most"], look["visual"], strict=True):
        assert line.max() == 255
        total = ((line / 255.0) ** 2).sum() * most
        assert total == pytest.approx(visual, abs=0.02)
        assert 0 < visual <= 1


def test_tokens_lie_where_the_grid_says(comparison):
    (picture,) = comparison.pictures
    (only,) = picture["sheets"]
    (view,) = only["views"]
    assert (view["rows"], view["columns"], view["box"]) == (ROWS, COLUMNS, [0.0, 0.0, 1.0, 1.0])
    assert view["cells"] == list(range(ROWS * COLUMNS))
    assert picture["src"].startswith("data:image/")


def test_places_are_known_without_the_pictures_themselves(loaded, sheet, comparison):
    inputs = answers.prepare(loaded, sheet.pages, "AB?")
    settings = {"inputs": inputs, "max_new_tokens": 1, "measured": False}
    found = collect(loaded, [], "AB?", ["knorm"], [0.2], **settings)
    assert found.notes == () and found.pictures[0]["src"] is None
    assert found.pictures[0]["sheets"] == comparison.pictures[0]["sheets"]


def test_tokens_without_known_places_come_in_reading_order(loaded, sheet, monkeypatch):
    def unknown(*args, **options):
        raise InputError("nobody knows")

    monkeypatch.setattr("foveate.report.shown.pictures", unknown)
    asked = sheet.questions[1].text
    found = collect(loaded, sheet.pages, asked, ["knorm"], [0.2], max_new_tokens=2, measured=False)
    (picture,) = found.pictures
    cells = picture["sheets"][0]["views"][0]["cells"]
    assert picture["src"] is None
    assert [cell for cell in cells if cell >= 0] == list(range(ROWS * COLUMNS))
    assert "nobody knows" in found.notes[0]


def test_a_run_that_fails_is_told_among_the_others(loaded, sheet, monkeypatch):
    run = Asked.run

    def failing(self, method):
        if method == foveate.knorm(keep=0.2):
            raise MethodError("not with these")
        return run(self, method)

    monkeypatch.setattr(Asked, "run", failing)
    settings = {"max_new_tokens": 2, "measured": False}
    found = collect(loaded, sheet.pages, "AB?", ["knorm", "random"], [0.2], **settings)
    assert found.runs[0] == {
        "method": "knorm", "keep": 0.2, "budget": "20 %", "error": "not with these"
    }  # fmt: skip
    assert found.runs[1]["tokens"] == 2
    with pytest.raises(MethodError, match="not with these"):
        collect(loaded, sheet.pages, "AB?", ["knorm"], [0.2], **settings)


@pytest.mark.parametrize(
    ("methods", "keeps", "words"),
    [
        (["full"], [0.5], "name another"),
        ([], [0.5], "at least one"),
        (["knorm"], [], "at least"),
        (["knorm", "random", "knorm"], [0.5], "method knorm came twice"),
        (["knorm"], [0.5, 0.50000001], "keep 50 % came twice"),  # would be one place of the slider
    ],
)
def test_what_cannot_be_compared_is_refused(loaded, sheet, methods, keeps, words):
    with pytest.raises(InputError, match=words):
        collect(loaded, sheet.pages, "AB?", methods, keeps)


def test_a_prompt_of_text_has_nothing_to_show(loaded):
    with pytest.raises(InputError, match="add a picture"):
        collect(loaded, [], "AB?", ["knorm"], [0.5])


def test_a_picture_behind_a_video_is_its_own(loaded):
    token = loaded.processor.image_token_id
    video, picture = (Picture((View("whole", ((at, at + 1),)),), video=at == 0) for at in (0, 3))
    ids = [token, token, 0, token, token]
    found = told(loaded.model.config, ids, lambda: (video, picture), [{"src": "the picture"}])
    assert [one["src"] for one in found.pictures] == [None, "the picture"]


def test_methods_come_with_options(loaded, sheet):
    entry = Entry("random", {"seed": 5}, "by lot")
    found = collect(
        loaded, sheet.pages, "AB?", [entry, "snapkv(window=3)"], [7], max_new_tokens=1,
        measured=False,
    )  # fmt: skip
    assert [(run["method"], run["budget"]) for run in found.runs] == [
        ("by lot", "7 tokens"),
        ("snapkv(window=3)", "7 tokens"),
    ]
    assert found.summary()[0]["method"] == "full"
    assert "kept_visual" not in found.summary()[1]

"""`foveate demo`: every question to every cache, and a picture to go on with."""

import json

import pytest
from PIL import Image

from foveate.cli import console, demo

pytestmark = pytest.mark.usefixtures("untrained")


def test_json_has_every_cache(run):
    done = run("demo", "--questions", "2", "--json")
    found = json.loads(done.out)
    assert done.code == 0
    assert [cache["cache"] for cache in found["caches"]] == ["full", "50 %", "10 %", "5 %", "1 %"]
    sizes = [cache["bytes"] for cache in found["caches"]]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == 5
    kept = [cache["visual_kept"] for cache in found["caches"]]
    assert kept[0] == 256
    assert kept[2] == pytest.approx(25.6, abs=0.2)
    for cache in found["caches"]:
        for answer, right, asked in zip(
            cache["answers"], cache["right"], found["questions"], strict=True
        ):
            assert right == (answer == asked["right_answer"])


def test_table_and_advice(run, tmp_path):
    path = tmp_path / "page.png"
    done = run("demo", "--questions", "1", "--save", path)
    assert done.code == 0
    for words in ("visual tokens kept", "cache bytes", "ms per new token", f"foveate ask {path}"):
        assert words in done.out
    with Image.open(path) as picture:
        assert picture.size == (256, 256)


def test_advice_can_be_typed_as_it_stands(monkeypatch, tmp_path):
    monkeypatch.setattr("sys.argv", [".venv/bin/foveate", "demo"])
    monkeypatch.setenv("PATH", str(tmp_path))
    assert demo._called() == ".venv/bin/foveate"
    (tmp_path / "foveate").write_text("")
    (tmp_path / "foveate").chmod(0o755)
    assert demo._called() == "foveate"


def test_unwritable_picture_is_explained(run, tmp_path):
    done = run("demo", "--save", tmp_path / "none" / "page.png")
    assert (done.code, done.out) == (2, "")
    assert "cannot be written" in done.err


def test_seeds_make_documents(run):
    first, again, other = (
        json.loads(run("demo", "--questions", "1", "--seed", seed, "--json").out)["questions"]
        for seed in (1, 1, 2)
    )
    assert first == again != other


def test_other_layouts_and_their_questions(run):
    found = json.loads(run("demo", "--layout", "table", "--questions", "2", "--json").out)
    assert len(found["questions"]) == 2
    done = run("demo", "--layout", "spiral")
    assert (done.code, done.out) == (2, "")
    assert "receipt" in done.err


@pytest.mark.parametrize(("encoding", "signs"), [("utf-8", "✓✗"), ("ascii", "okno")])
def test_right_and_wrong_differ_without_colour(monkeypatch, encoding, signs):
    monkeypatch.setattr(console.sys, "stdout", type("Out", (), {"encoding": encoding})())
    half = len(signs) // 2
    assert console.mark(True).split("]")[1].startswith(signs[:half])
    assert console.mark(False).split("]")[1].startswith(signs[half:])


def test_a_question_is_shown_on_a_page(run, tmp_path):
    out = tmp_path / "seen.html"
    done = run("demo", "--questions", "1", "--report", out)
    assert done.code == 0 and f"Open {out}" in done.out
    assert "<title>" in out.read_text()

"""`foveate report`: a file, a table of answers or one JSON object, and plain words for mistakes."""

import json
import re

import pytest

pytestmark = pytest.mark.usefixtures("untrained")
DATA = re.compile(r'id="comparison">(.*?)</script>', re.DOTALL)
QUICK = ("--max-new-tokens", "2", "--no-measure")


def data(path):
    return json.loads(DATA.search(path.read_text()).group(1))


def test_a_page_is_written_and_named(run, page, tmp_path):
    out = tmp_path / "seen.html"
    words = ("--methods", "snapkv,random", "--keep", "0.5,3", "--out", out, "--max-new-tokens", "2")
    done = run("report", page, "AB?", *words)
    assert done.code == 0, done.err
    assert str(out) in done.out.replace("\n", "")
    found = data(out)
    assert [(one["method"], one["budget"]) for one in found["runs"]] == [
        ("snapkv", "50 %"), ("snapkv", "3 tokens"), ("random", "50 %"), ("random", "3 tokens")
    ]  # fmt: skip
    assert (found["question"], found["visual"]) == ("AB?", 35)
    assert 0 < found["runs"][0]["fidelity"]["mass"] <= 1
    assert "less than the window" in found["runs"][1]["error"]


def test_without_words_a_generated_page_is_asked(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run("report", "--methods", "random", "--keep", "0.5", *QUICK)
    assert done.code == 0
    assert data(tmp_path / "report.html")["visual"] == 256
    assert (tmp_path / "report.html").stat().st_size < 1_000_000


def test_json_is_one_object_and_nothing_else(run, page, tmp_path):
    out = tmp_path / "seen.html"
    done = run("report", page, "AB?", "--keep", "0.5", "--out", out, "--json", *QUICK)
    found = json.loads(done.out)
    assert found["out"] == str(out) and out.exists()
    assert [one["method"] for one in found["runs"]] == ["full", "foveate", "aircache", "snapkv"]
    assert "kept_visual" not in found["runs"][1] and "src" not in done.out


def test_several_pictures_are_shown(run, page, tmp_path):
    out = tmp_path / "seen.html"
    words = ("--methods", "random", "--keep", "0.5", "--out", out, *QUICK)
    assert run("report", page, page, "AB?", *words).code == 0
    found = data(out)
    assert len(found["pictures"]) == 2
    assert [piece["picture"] for piece in found["prompt"] if "visual" in piece] == [0, 1]
    cells = [one["sheets"][0]["views"][0]["cells"] for one in found["pictures"]]
    assert cells == [list(range(35)), list(range(35, 70))]


def test_entries_have_options(run, page, tmp_path):
    out = tmp_path / "seen.html"
    words = ("--methods", "random", "--entry", "snapkv(window=3)", "--keep", "0.5", "--out", out)
    assert run("report", page, "AB?", *words, *QUICK).code == 0
    assert [one["method"] for one in data(out)["runs"]] == ["random", "snapkv(window=3)"]


def test_an_entry_alone_is_the_only_method(run, page, tmp_path):
    out = tmp_path / "seen.html"
    words = ("--entry", "snapkv", "--keep", "0.5", "--out", out)
    assert run("report", page, "AB?", *words, *QUICK).code == 0
    assert [one["method"] for one in data(out)["runs"]] == ["snapkv"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["AB?"], "at least one image"),
        (["missing.png", "AB?"], "no file missing.png"),
        (["--model", "somebody/model"], "came without a picture"),
        (["PAGE", "AB?", "--methods", "snapkw"], "did you mean 'snapkv'"),
        (["PAGE", "AB?", "--methods", "full"], "name another method"),
        (["PAGE", "AB?", "--methods", ""], "names no method"),
        (["PAGE", "AB?", "--methods", "random,random"], "method random came twice"),
        (["PAGE", "AB?", "--keep", "much"], "is not a number"),
        (["PAGE", "AB?", "--out", "no/such/folder/a.html"], "cannot be written"),
    ],
)
def test_mistakes_are_told_in_words(run, page, words, says, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    given = [page if word == "PAGE" else word for word in words]
    quick = ["--methods", "random"] if "--methods" not in words else []
    done = run("report", *given, *quick, *QUICK)
    assert done.code == 2 and done.out == ""
    assert says in done.err.replace("\n", " ")
    assert not (tmp_path / "report.html").exists()


def test_a_place_that_cannot_be_written_is_told_before_the_work(run, page, tmp_path, monkeypatch):
    monkeypatch.setattr("foveate.cli.models.load", None)
    done = run("report", page, "AB?", "--out", tmp_path, *QUICK)
    assert done.code == 2 and "it is a folder" in done.err.replace("\n", " ")

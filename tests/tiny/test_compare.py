"""The comparison of presets: every one has a row, a cut-off run goes on, the table says it all."""

import json
import sys

import pytest

import foveate
from foveate.tiny import compare


def test_every_preset_has_a_row():
    rows = [entry.preset for entry in compare.entries(None)]
    names = {info.name for info in foveate.methods()}
    assert names - {"full", "mixkv"} <= set(rows)
    assert {f"mixkv+{host}" for host in compare.HOSTS} <= set(rows)
    assert len({str(entry) for entry in compare.entries(None)}) == len(rows)
    assert all(isinstance(entry.method(0.1), foveate.Method) for entry in compare.entries(None))


@pytest.fixture
def arguments(tmp_path, monkeypatch):
    words = ["--number", "4", "--keep", "0.5", "--only", "recency", "random"]
    words += ["--log", str(tmp_path / "log.jsonl"), "--output", str(tmp_path / "out.json")]
    monkeypatch.setattr(sys, "argv", ["compare", *words])
    return tmp_path


def test_a_run_goes_on_where_it_was_cut_off(arguments, monkeypatch, capsys):
    compare.main()
    log, out = arguments / "log.jsonl", arguments / "out.json"
    lines = log.read_text().splitlines()
    assert {json.loads(line)["entry"] for line in lines} == {"full", "recency", "random"}
    first = json.loads(out.read_text())
    log.write_text("\n".join(lines[:2]) + "\n")
    asked = []
    answers = compare.answers
    monkeypatch.setattr(compare, "answers", lambda *a: asked.append(a) or answers(*a))
    compare.main()
    assert len(asked) == 1
    again = json.loads(out.read_text())
    assert again["cells"] == first["cells"] and again["table"] == first["table"]


def test_the_table_is_ordered_by_what_it_shows():
    right, wrong = [1, "A?", "12", "12"], [1, "A?", "12", "13"]
    cells = {
        ("full", 1.0): [right, right],
        ("a", 0.5): [right, wrong],
        ("a", 0.1): [wrong, wrong],
        ("b", 0.5): [right, right],
        ("b", 0.1): [right, wrong],
    }
    table = compare.summary(cells, {})["table"]
    assert table["columns"] == ["method", "50%", "10%"]
    assert table["rows"] == [
        ["full cache", "100.0", "100.0"],
        ["`b`", "100.0", "50.0"],
        ["`a`", "50.0", "0.0"],
    ]

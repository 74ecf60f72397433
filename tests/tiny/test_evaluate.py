"""An evaluation writes what it measured, and the card shows what was written."""

import json
import sys

import pytest

from foveate.tiny import CHECKPOINT, card, evaluate
from foveate.tiny.documents import HELD_OUT, TRAINING
from foveate.tiny.evaluate import Answer, Case, examples, table

SMALL = ["--grid", "8x8", "--number", "3", "--layout", "rows", "--skill", "lookup", "row"]


def test_an_evaluation_is_written_and_shown(tmp_path, monkeypatch):
    output = tmp_path / "study.json"
    arguments = [*SMALL, "--method", "random", "--keep", "0.5", "--output", str(output)]
    monkeypatch.setattr(sys, "argv", ["evaluate", *arguments])
    evaluate.main()
    study = json.loads(output.read_text())
    assert [(c["skill"], c["layout"], c["method"], c["keep"]) for c in study["cases"]] == [
        ("lookup", "rows", "full", 1.0),
        ("lookup", "rows", "random", 0.5),
        ("row", "table", "full", 1.0),
        ("row", "table", "random", 0.5),
    ]
    for case in study["cases"]:
        right = sum(said == answer for _, _, answer, said in case["answers"])
        assert case["exact"] == pytest.approx(right / 3, abs=1e-3)
    written = tmp_path / "README.md"
    written.write_text("Before\n<!-- table:study -->\nold\n<!-- /table -->\nAfter\n")
    filled = card.fill(written, tmp_path)
    assert filled.startswith("Before\n") and filled.endswith("After\n") and "old" not in filled
    assert "| lookup | 8 x 8 | random 50% |" in filled


def test_the_mean_is_over_layouts():
    right, wrong = Answer(0, "A?", "1", "1"), Answer(0, "A?", "1", "2")
    measured = {
        Case("lookup", "rows", (8, 8)): [right, right],
        Case("lookup", "table", (8, 8)): [right, wrong, wrong, wrong],
    }
    assert table(measured) == {
        "columns": ["skill", "grid", "cache", "rows", "table", "mean", "n"],
        "rows": [["lookup", "8 x 8", "full", "100.0%", "25.0%", "62.5%", "6"]],
    }


def test_evaluation_and_training_draw_from_different_seeds():
    seeds = {seed for seed, _, _ in examples(Case("count", "rows", (8, 8)), 20, 1)}
    assert min(seeds) in HELD_OUT and max(seeds) in HELD_OUT
    assert HELD_OUT.stop <= TRAINING


def test_the_card_is_up_to_date():
    results = CHECKPOINT.parents[3] / "benchmarks" / "results"
    if not (results / "tiny-accuracy.json").is_file():
        pytest.skip("the results are not part of an installed package")
    text = (CHECKPOINT / "README.md").read_text()
    assert card.fill(CHECKPOINT / "README.md", results) == text

"""MileBench's form: the example is what the script writes, and categories are means of means."""

import importlib.util
import math
import sys
from pathlib import Path

import pytest

from foveate.eval.local import local_task
from foveate.eval.log import Log
from foveate.eval.record import Cell, Record
from foveate.integrations import milebench
from foveate.integrations.milebench import CATEGORIES, Score, categories

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples/milebench/PagesNeedleInAHaystack"


def record(task, score, entry="lookm", keep="0.2", sample="1"):
    return Record(Cell(task, entry, keep), sample, "", "", score)


def test_example_is_up_to_date(tmp_path):
    path = ROOT / "scripts/milebench_example.py"
    spec = importlib.util.spec_from_file_location("milebench_example", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.main(tmp_path) == 0
    table = f"{EXAMPLE.name}/{EXAMPLE.name}.json"
    assert (tmp_path / table).read_text() == (EXAMPLE.parent / table).read_text()


def test_example_is_a_task_of_several_images():
    task = local_task(EXAMPLE, shape="milebench")
    samples = task.source.samples(None, 0)
    assert len(samples) == 8
    assert task.metric.name == "milebench_word"
    for sample, pages in zip(samples, (4,) * 6 + (2,) * 2, strict=True):
        *images, question = sample.turns[0][0].parts
        assert len(images) == pages
        assert question.strip().endswith("?")
        assert task.metric.score(f" {sample.answers[0]}.", sample) == 1.0
        assert task.metric.score("nothing", sample) == 0.0


def test_taxonomy_has_all_data_sets_once():
    names = [name for sets in CATEGORIES.values() for name in sets]
    assert len(names) == len(set(names)) == 29


def test_categories_are_means_over_data_sets_not_samples():
    records = (
        *(record("ALFRED", 1.0, sample=str(number)) for number in range(3)),
        record("MMCoQA", 0.0),
        record("scene_transition", 0.5),
        record("StateChange", None),
        record("Pages", 0.25, entry="full", keep="1.0"),
    )
    found = categories(Log((), records))
    assert found[("lookm", "0.2")]["S-4"] == Score(0.5, 2)
    assert found[("lookm", "0.2")]["T-4"] == Score(0.5, 1, failed=1)
    assert found[("full", "1.0")] == {"Pages": Score(0.25, 1)}


def test_a_category_of_failures_has_no_score():
    (score,) = categories(Log((), (record("IEdit", None),)))[("lookm", "0.2")].values()
    assert math.isnan(score.mean)
    assert score.failed == 1


def test_command(monkeypatch, capsys):
    records = (record("ALFRED", 1.0), record("GPR1200", 0.375), record("IEdit", None))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(milebench, "read_log", lambda *paths: Log((), records))
    monkeypatch.setattr(sys, "argv", ["milebench", "a.jsonl"])
    milebench.main()
    told = capsys.readouterr().out
    assert "100.0 (1 of 2)" in told
    assert "37.5 " in told
    assert "1 failed" in told


def test_command_without_logs(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["milebench"])
    with pytest.raises(SystemExit) as stop:
        milebench.main()
    assert stop.value.code == 2
    assert "no log came" in capsys.readouterr().err

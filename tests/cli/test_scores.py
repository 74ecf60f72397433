"""What `foveate eval` says below its tables: how to read them, and what failed."""

import csv
import io
import json

import pytest
from rich.console import Console

from foveate.cli import console, saved
from foveate.eval.running.unit import Desk
from foveate.eval.tasks import task

SMALL = ("lookup-144", "--number", "2", "--keep", "0.5", "--device", "cpu")


@pytest.fixture
def eval(run, untrained, tmp_path):
    """Score methods on two samples with an untrained model."""
    return lambda methods: run("eval", *SMALL, "--methods", methods, "--out", tmp_path / "log")


@pytest.mark.parametrize(("methods", "has_arrows"), [("snapkv,random", True), ("random", False)])
def test_arrows_are_explained_where_there_is_something_to_compare_with(eval, methods, has_arrows):
    done = eval(methods)
    assert done.code == 0 and "95 % interval" in done.out
    assert ("better or worse than snapkv" in done.out) == has_arrows


def test_a_run_without_any_answer_says_why_and_fails(eval, monkeypatch):
    def answered(self, cell, samples):
        raise MemoryError(f"no room for [{samples[0].id}]")

    monkeypatch.setattr(Desk, "_answered", answered)
    done = eval("random")
    assert done.code == 1 and "Failed: 4, without a score" in done.out
    first = task("lookup-144").source.samples(1, 0)[0].id
    assert f"The first: MemoryError: no room for [{first}]" in " ".join(done.out.split())


def test_failed_samples_are_done_again_in_a_log_that_is_named(
    run, untrained, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    done = run("eval", *SMALL, "--retry-failed")
    assert (done.code, done.out) == (2, "") and "give it with --out" in done.err
    assert not list(tmp_path.iterdir())


def test_nothing_in_a_table_is_cut_off_on_a_narrow_screen(run, untrained, tmp_path, monkeypatch):
    words = ("--methods", "random,recency", "--fidelity", "--out", tmp_path / "log")
    run("eval", *SMALL, *words)
    made = Console(file=io.StringIO(), width=60)
    monkeypatch.setattr(console, "out", lambda: made)
    run("eval", *SMALL, *words)
    assert "perplexity full" in made.file.getvalue() and "…" not in made.file.getvalue()


def test_tables_are_saved_as_markdown_and_every_cell_as_csv(run, untrained, tmp_path):
    files = [tmp_path / "tables.md", tmp_path / "cells.csv"]
    words = ("--methods", "random,snapkv", "--fidelity", "--out", tmp_path / "log", "--json")
    done = run("eval", "row-144", *SMALL, *words, *(w for f in files for w in ("--save", f)))
    found = json.loads(done.out)["outcomes"]
    text, cells = (file.read_text() for file in files)
    assert f"{found[0]['task']} (n = 2 for each task):\n\n| method | 50% |\n| --- | --- |\n" in text
    assert text.count("| full cache | ") == 4 and text.count("\n| --- |") == 6
    assert text.startswith("All tasks (n = 2 for each task):\n\n| method | row-144 50% | ")
    assert "| lookup-144 50% | all 50% |\n" in text.splitlines(keepends=True)[2]
    assert "Bytes stored / full cache (n = 2" in text and "| agreement | random | " in text
    assert "better or worse than snapkv" in text and "embedded (weights " in text
    rows = list(csv.DictReader(cells.splitlines()))
    assert [(row["task"], row["entry"]) for row in rows] == [(o["task"], o["entry"]) for o in found]
    for row, outcome in zip(rows, found, strict=True):
        assert float(row["score"]) == outcome["score"] and row["n"] == "2"
        if outcome["entry"] != "full":
            full = next(one for one in outcome["comparisons"] if one["over"] == "full")
            assert float(row["full_p"]) == pytest.approx(full["mcnemar"])
            assert float(row["kl"]) == outcome["measures"]["kl"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("tables.xlsx", "tables are saved as .md or .csv, curves as .svg"),
        ("tables", "tables are saved as .md or .csv, curves as .svg"),
        ("nowhere/tables.md", "there is no folder"),
        ("folder.csv", "it is a folder"),
    ],
)
def test_files_that_cannot_be_saved_are_refused_before_the_work(
    run, untrained, tmp_path, name, says
):
    (tmp_path / "folder.csv").mkdir()
    done = run("eval", *SMALL, "--out", tmp_path / "log", "--save", tmp_path / name)
    assert (done.code, done.out) == (2, "") and says in done.err
    assert not (tmp_path / "log").exists()


def test_scores_over_budgets_are_saved_as_a_picture(run, untrained, tmp_path):
    words = ("eval", *SMALL, "--methods", "random,snapkv", "--out", tmp_path / "log")
    for keep, across in (("0.5,0.1", "kept, %"), ("64,48", "tokens kept")):
        done = run(*words, "--keep", keep, "--save", tmp_path / "curves.svg")
        assert done.code == 0, done.err
        drawn = (tmp_path / "curves.svg").read_text()
        assert all(f">{word}<" in drawn for word in ("lookup-144", "random", "snapkv", across))


def test_budgets_that_have_no_common_axis_are_not_drawn(run, untrained, tmp_path, monkeypatch):
    words = ("eval", *SMALL, "--methods", "snapkv", "--out", tmp_path / "log")
    for keep in ("0.5,9", "0.5,auto"):
        done = run(*words, "--keep", keep, "--save", tmp_path / "curves.svg")
        assert (done.code, done.out) == (2, "") and f"--keep is {keep}; save tables" in done.err
    monkeypatch.setattr(saved, "find_spec", lambda name: None)
    done = run(*words, "--save", tmp_path / "curves.svg")
    assert done.code == 1 and "pip install 'foveate[charts]'" in done.err
    assert not (tmp_path / "log").exists()

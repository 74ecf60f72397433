"""What is committed of a run: every score once, and tables that follow from nothing else."""

import csv
import json
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import results as program

from foveate.errors import InputError
from foveate.eval.entry import Entry
from foveate.eval.judging.outcomes import outcomes
from foveate.eval.judging.results import dumped, scored, summary
from foveate.eval.judging.stats import mcnemar, mean_interval, paired
from foveate.eval.log import Log
from foveate.eval.record import Cell, Record, Run
from foveate.eval.showing.listed import as_csv
from foveate.eval.showing.tables import tables
from foveate.eval.study import Layout, Printed, Study

ROOT = Path(__file__).resolve().parents[3]
TASKS = ("lookup-144", "row-144", "row-256")
STUDY = Study(
    name="made-up",
    answers="Who wins?",
    tasks=TASKS,
    entries=(Entry("snapkv"), Entry("h2o"), Entry("mixkv", label="mixed on h2o")),
    keeps=(0.5, 0.05, 64),
    layouts=(Layout("plain", "Plain"),),
    printed=(Printed("printed-1", "A paper", "Printed by it.", ("a", "b"), (("x", "1"),)),),
)
RUN = Run(
    model="m",
    revision="r",
    commit="c1",
    date="2026-01-02",
    versions={"torch": "2"},
    machine={"system": "Linux", "threads": 1},
    settings={"number": 13},
    tasks=dict.fromkeys(TASKS, "Task"),
    methods={"full @ 1.0": "full", "snapkv @ 0.5": "S", "gone @ 0.5": "G"},
)
NUMBER = 13


def right(name, keep, task, index):
    """Return a score that a better method, a larger budget and an easier sample raise."""
    skill = {"full": 9, "snapkv": 5, "h2o": 1, "mixed on h2o": 3}[name]
    return float((index * 7 + len(task)) % NUMBER < skill + 6 * keep)


def records(score=right, number=NUMBER):
    cells = [("full", "1.0"), *((e.label, str(k)) for e in STUDY.entries for k in STUDY.keeps)]
    return [
        Record(
            Cell(task, name, keep),
            f"page-{index}",
            "p",
            "said",
            score(name, min(float(keep), 1.0), task, index),
            kept=float(keep) if float(keep) < 1 else 1.0,
            bytes_stored=10,
            bytes_full=40,
            measures={"kl": index / 10},
        )
        for task in TASKS
        for name, keep in cells
        for index in range(number)
    ]


def made(found, study=STUDY):
    result = summary(study.name, Log((RUN,), tuple(found)))
    return {**result, "tables": tables(study, result)}


def shown(found=None, **layout):
    study = replace(STUDY, layouts=(Layout("one", "One", **layout),))
    return made(records() if found is None else found, study)["tables"]["one"]


def test_every_score_is_there_and_the_order_of_the_log_is_not():
    found = records()
    random.Random(5).shuffle(found)
    again = scored(json.loads(dumped(made(found))))
    assert [cell.scores for cell in scored(made(records()))] and len(again) == 30
    for cell in again:
        name, keep = cell.cell.entry, min(float(cell.cell.keep), 1.0)
        names = sorted(f"page-{i}" for i in range(NUMBER))
        wanted = [right(name, keep, cell.cell.task, int(word[5:])) for word in names]
        assert list(cell.scores) == wanted and cell.failed == 0
        assert cell.bytes == 0.25 and cell.measures["kl"] == pytest.approx(0.6)


def test_cells_are_in_the_order_in_which_they_were_asked_for():
    names = [f"{cell.entry} @ {cell.keep}" for cell in dict.fromkeys(r.cell for r in records())]
    run = replace(RUN, methods=dict.fromkeys(names, "M"))
    orders = []
    for seed in range(3):
        found = records()
        random.Random(seed).shuffle(found)
        orders.append([cell.cell for cell in scored(summary("s", Log((run,), tuple(found))))])
    assert orders[0] == orders[1] == orders[2] == [*dict.fromkeys(r.cell for r in records())]


def test_where_it_comes_from_is_there():
    result = made(records())
    assert (result["commit"], result["machine"]["threads"]) == ("c1", 1)
    assert result["methods"] == {"full @ 1.0": "full", "snapkv @ 0.5": "S"}
    two = summary("made-up", Log((RUN, replace(RUN, commit="c2")), tuple(records())))
    assert two["commit"] == "c1, c2"
    with pytest.raises(InputError, match="the log is empty"):
        summary("made-up", Log((), ()))


def test_samples_that_not_all_cells_have_wait():
    found = [r for r in records() if (r.cell.entry, r.sample) != ("h2o", "page-3")]
    result = made(found)
    assert {cell["n"] for cell in result["cells"]} == {NUMBER - 1}
    assert result["left_out"] == len(found) - 30 * (NUMBER - 1)


def test_failures_are_told_and_do_not_count_as_wrong():
    found = records()
    bad = [
        replace(r, score=None, error="Traceback") if r.cell.entry == "h2o" and i % 3 == 0 else r
        for i, r in enumerate(found)
    ]
    cells = {(c.cell.task, c.cell.entry, c.cell.keep): c for c in scored(made(bad))}
    cell = cells["row-144", "h2o", "0.5"]
    assert cell.failed and None in cell.scores and len(cell.scores) == NUMBER
    table = shown(bad, columns=("keep",))
    row = next(row for row in table["rows"] if row[0] == "h2o")
    assert all("failed)" in text for text in row[1:])
    gone = [replace(r, score=None) if r.cell.entry == "h2o" else r for r in found]
    assert next(row for row in shown(gone)["rows"] if row[0] == "h2o")[1] == "(13 failed)"
    for what in ("kept", "bytes", "kl"):
        rows = shown(gone, shows=what)["rows"]
        assert [any(row[1:]) for row in rows if row[0] in ("h2o", "snapkv")] == [True, False]


def test_a_seed_that_failed_has_no_part_in_what_is_stored():
    found = [r for r in records() if r.cell.task == "row-144"]
    later = [replace(r, cell=replace(r.cell, seed=1), score=None) for r in found]
    cells = scored(summary("made-up", Log((RUN,), tuple(found + later))))
    one = next(o for o in outcomes(cells, "snapkv") if (o.entry, o.keep) == ("h2o", "0.5"))
    assert (one.n, one.failed, one.kept, one.bytes) == (26, 13, 0.5, 0.25)
    (gone, *_) = outcomes([cell for cell in cells if cell.cell.seed == 1], "snapkv")
    assert (gone.score, gone.kept, gone.bytes) == (None, None, None)


def test_scores_between_right_and_wrong_are_kept():
    found = [replace(r, score=r.score * 0.123456) for r in records()]
    result = made(found)
    assert result["cells"][0]["scores"][0] in (0.0, 0.1235)
    assert {score for cell in scored(result) for score in cell.scores} == {0.0, 0.1235}


def test_a_cell_has_mean_and_interval():
    table = shown()
    assert table["columns"][:4] == ["method", "lookup-144 50%", "lookup-144 5%", "lookup-144 64"]
    assert [row[0] for row in table["rows"]] == ["full cache", "snapkv", "h2o", "mixed on h2o"]
    scores = [right("h2o", 0.05, "lookup-144", i) for i in range(NUMBER)]
    mean, (low, high) = mean_interval(scores)
    assert table["rows"][2][2].startswith(f"{100 * mean:.1f} ±{50 * (high - low):.1f}")
    full = table["rows"][0]
    assert full[1] == full[2] == full[3]
    assert "(n = 13 for each task)" in table["title"]


def test_arrows_compare_with_the_reference_at_the_same_budget():
    table = shown(columns=("keep",))
    for row in table["rows"]:
        for keep, text in zip((0.5, 0.05, 1.0), row[1:], strict=True):
            name = {"full cache": "full"}.get(row[0], row[0])
            mine, theirs = (
                [right(who, keep, task, i) for task in TASKS for i in range(NUMBER)]
                for who in (name, "snapkv")
            )
            less = name not in ("full", "snapkv") and mcnemar(mine, theirs) < 0.05
            assert ("↓" in text) == (less and name == "h2o") and "↑" not in text
    better = [
        replace(r, score=float(r.cell.entry == "h2o" or r.sample < "page-2")) for r in records()
    ]
    assert "100.0 ±7.0 ↑" not in shown(better)["rows"][2][1:]
    assert all(text.endswith("↑") for text in shown(better, columns=("keep",))["rows"][2][1:])


def test_tasks_are_counted_in_which_a_method_is_better_and_worse():
    def score(name, keep, task, index):
        known = {("h2o", "row-144"): 1.0, ("h2o", "row-256"): 0.0, ("snapkv", "row-144"): 0.0}
        return known.get((name, task), float(index > 0))

    layout = {"columns": ("keep",), "shows": "tasks"}
    rows = shown(records(score), **layout)["rows"]
    assert rows == [["snapkv", *["0 ↑ 0 ↓"] * 3], ["h2o", *["1 ↑ 1 ↓"] * 3], rows[2]]
    others = shown(records(score), **layout, beside="h2o", entries=("snapkv",))["rows"]
    assert others == [["snapkv", *["1 ↑ 1 ↓"] * 3]]


def test_graded_scores_are_compared_by_a_bootstrap():
    found = [replace(r, score=0.4 if r.cell.entry == "h2o" else 0.5) for r in records()]
    assert all(text.endswith("↓") for text in shown(found)["rows"][2][1:])


def test_names_that_no_axis_has_are_taken_together():
    table = shown(rows=("tokens", "entry"), columns=("family", "keep"))
    assert table["columns"][:2] == ["visual tokens", "method"]
    assert [row[:2] for row in table["rows"][:2]] == [["144", "full cache"], ["144", "snapkv"]]
    assert len(table["rows"]) == 8
    blank = next(row for row in table["rows"] if row[:2] == ["256", "h2o"])
    assert blank[2:5] == ["", "", ""] and blank[5]
    row = shown(columns=("keep",))["rows"][1]
    scores = [right("snapkv", 0.5, task, i) for task in TASKS for i in range(NUMBER)]
    mean, (low, high) = mean_interval(scores)
    assert row[1] == f"{100 * mean:.1f} ±{50 * (high - low):.1f}"


def test_methods_that_some_tasks_were_not_asked_of_have_no_mean_over_tasks():
    found = [r for r in records() if (r.cell.entry, r.cell.task) != ("h2o", TASKS[2])]
    table = shown(found, together=True)
    row = next(row for row in table["rows"] if row[0] == "h2o")
    assert all(row[1:7]) and row[7:] == [""] * 6
    assert all(all(other[1:]) for other in table["rows"] if other is not row)


def test_all_tasks_together_are_more_columns():
    table = shown(together=True)
    alone = shown(columns=("keep",))
    assert table["columns"][-3:] == ["all 50%", "all 5%", "all 64"]
    assert [row[-3:] for row in table["rows"]] == [row[1:] for row in alone["rows"]]


def test_rows_can_be_entries_or_budgets():
    table = shown(rows=("task", "keep"), columns=("entry",))
    assert table["columns"] == ["task", "kept", "full cache", "snapkv", "h2o", "mixed on h2o"]
    assert [row[:2] for row in table["rows"][:3]] == [[TASKS[0], w] for w in ("50%", "5%", "64")]
    upright = shown()
    for i, row in enumerate(table["rows"]):
        assert row[2:] == [line[1 + i] for line in upright["rows"]]


def test_settings_are_shown_by_host():
    rows = tuple(Entry("mixkv", label=f"{s} on {h}") for h in ("one", "two") for s in ("a", "b"))
    study = replace(
        STUDY,
        entries=rows,
        reference="a",
        layouts=(Layout("one", "One", ("setting",), ("host",)),),
    )
    cells = [("full", "1.0"), *((entry.label, "0.5") for entry in rows)]
    found = [
        Record(Cell(TASKS[0], name, keep), str(i), "", "", float(name not in ("b on two",)))
        for name, keep in cells
        for i in range(NUMBER)
    ]
    table = made(found, study)["tables"]["one"]
    assert table["columns"] == ["setting", "one", "two"]
    assert [row[0] for row in table["rows"]] == ["full cache", "a", "b"]
    assert table["rows"][2][1].startswith("100.0") and table["rows"][2][2].endswith("↓")
    assert table["rows"][0][1] == table["rows"][0][2] == table["rows"][1][1]


def test_differences_have_a_row():
    table = shown(columns=("keep",), over={"h2o": "snapkv"})
    names = [row[0] for row in table["rows"]]
    assert names == ["full cache", "snapkv", "h2o", "difference", "mixed on h2o"]
    mine, theirs = (
        [right(who, 0.5, task, i) for task in TASKS for i in range(NUMBER)]
        for who in ("h2o", "snapkv")
    )
    difference, (low, high), _ = paired(mine, theirs)
    wanted = f"{100 * difference:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
    assert table["rows"][3][1].startswith(wanted) and difference < 0


def test_the_best_row_can_come_first():
    found = [replace(r, score=float(r.cell.entry == "h2o")) for r in records()]
    names = [row[0] for row in shown(found, ordered=True)["rows"]]
    assert names == ["full cache", "h2o", "snapkv", "mixed on h2o"]


def test_a_layout_can_be_about_some_cells():
    table = shown(keeps=(0.05,), families=("row",), entries=("h2o",))
    assert table["columns"] == ["method", "row-144 5%", "row-256 5%"]
    assert [row[0] for row in table["rows"]] == ["full cache", "h2o"]


def test_what_is_stored_can_be_shown():
    assert shown(columns=("keep",), shows="bytes")["rows"][1][1:] == ["0.250"] * 3
    assert shown(columns=("keep",), shows="kept")["rows"][1][1:] == ["0.500", "0.050", "1.000"]
    assert shown(columns=("keep",), shows="kl")["rows"][1][1:] == ["0.600"] * 3
    assert shown(columns=("keep",), shows="mass")["rows"][1][1:] == [""] * 3


def test_what_papers_print_is_not_said_to_be_measured():
    table = made(records())["tables"]["printed-1"]
    assert table == {
        "title": "A paper",
        "source": "Printed by it.",
        "columns": ["a", "b"],
        "rows": [["x", "1"]],
    }


def test_every_cell_is_a_row_of_the_csv():
    result = made(records())
    rows = list(csv.DictReader(as_csv(STUDY, result).splitlines()))
    assert len(rows) == len(result["cells"])
    row = next(r for r in rows if (r["task"], r["entry"], r["keep"]) == (TASKS[0], "h2o", "0.5"))
    mine, theirs = ([right(w, 0.5, TASKS[0], i) for i in range(NUMBER)] for w in ("h2o", "snapkv"))
    assert row["against"] == "snapkv" and row["n"] == "13"
    assert float(row["difference"]) == pytest.approx(sum(mine) / 13 - sum(theirs) / 13, abs=1e-4)
    assert float(row["p"]) == pytest.approx(mcnemar(mine, theirs), rel=1e-3)
    whole = [right("full", 1.0, TASKS[0], i) for i in range(NUMBER)]
    assert float(row["full_difference"]) == pytest.approx((sum(mine) - sum(whole)) / 13, abs=1e-4)
    assert float(row["full_p"]) == pytest.approx(mcnemar(mine, whole), rel=1e-3)
    full = next(r for r in rows if r["entry"] == "full")
    assert {full[name] for name in ("against", "p", "full_difference", "full_p")} == {""}


def test_perplexities_are_averaged_as_their_logarithms():
    found = [replace(r, measures={"perplexity": 10.0 ** int(r.sample[5:])}) for r in records()]
    found = [
        replace(r, cell=replace(r.cell, seed=seed), measures={"perplexity": value})
        for r in found
        for seed, value in ((0, r.measures["perplexity"]), (1, 1.0))
    ]
    result = made(found)
    assert {cell["measures"]["perplexity"] for cell in result["cells"]} == {1e6, 1.0}
    told = [one.measures["perplexity"] for one in outcomes(scored(result), "snapkv")]
    assert told == pytest.approx([1e3] * len(told))
    assert shown(found, columns=("keep",), shows="perplexity")["rows"][1][1] == "1000.000"


def test_a_cell_without_a_score_has_no_numbers_in_the_csv():
    found = [replace(r, score=None) if r.cell.entry == "h2o" else r for r in records()]
    rows = list(csv.DictReader(as_csv(STUDY, made(found)).splitlines()))
    row = next(r for r in rows if (r["task"], r["entry"], r["keep"]) == (TASKS[0], "h2o", "0.5"))
    assert (row["n"], row["failed"]) == ("13", "13")
    assert {row[name] for name in ("score", "low", "high", "p", "full_p", "kept", "bytes")} == {""}


@pytest.fixture
def site(tmp_path):
    """Return a root with a committed study, as the program wrote it."""
    folder = tmp_path / "benchmarks" / "results"
    folder.mkdir(parents=True)
    for path in (ROOT / "benchmarks" / "results").glob("eval-aircache-window.*"):
        shutil.copy(path, folder)
    return tmp_path


def test_committed_tables_are_those_of_their_scores(capsys):
    assert program.main(["--check"]) == 0, capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "old", "new", "says"),
    [
        ("eval-aircache-window.json", '"scores": "1', '"scores": "0', "is not that of its scores"),
        ("eval-aircache-window.json", '"rows": [["full', '"rows": [["ful', "table table-5"),
        ("eval-aircache-window.csv", ",1.0", ",0.9", "eval-aircache-window.csv is not"),
    ],
)
def test_what_was_changed_by_hand_is_found(site, capsys, name, old, new, says):
    assert program.main(["--check"], site) == 0
    path = site / "benchmarks" / "results" / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    assert program.main(["--check"], site) == 1
    assert says in capsys.readouterr().out


def test_an_unknown_study_is_refused(tmp_path, capsys):
    (tmp_path / "log.jsonl").write_text("")
    assert program.main(["--from", str(tmp_path / "log.jsonl")], tmp_path) == 2
    assert "there is no study 'log'" in capsys.readouterr().err

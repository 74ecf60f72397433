"""A grid is worked through once, whatever fails, dies or is stopped on the way."""

import dataclasses
import itertools
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

import rehearsal
from foveate.errors import FoveateError, InputError, MethodError
from foveate.eval.entry import FULL, Entry
from foveate.eval.grid import Grid, run
from foveate.eval.log import read_log
from foveate.eval.record import Cell
from foveate.eval.running.unit import Work
from foveate.eval.running.workers import Processes
from foveate.eval.task import Metric, Task


def answers(log):
    """What was answered, without the time that it took."""
    return {
        (record.cell, record.sample): dataclasses.replace(record, seconds=0.0)
        for record in log.records
    }


def rehearse(path, grid=None, **options):
    options = {"setting": rehearsal.setting(), **options}
    return run(grid or rehearsal.grid(), rehearsal.load, path, **options)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "runs" / "numbers.jsonl"


def test_every_cell_has_every_sample_once_and_the_full_cache_is_a_cell(path):
    grid = rehearsal.grid(seeds=(1, 2))
    log = rehearse(path, grid)
    counts = Counter(record.cell for record in log.records)
    methods = {("full", "1.0")} | {
        (entry, keep) for entry in ("snapkv", "random(seed=3)") for keep in ("0.5", "0.1")
    }
    assert counts == {
        Cell(task, entry, keep, seed): 5
        for task in ("one", "two")
        for seed in (1, 2)
        for entry, keep in methods
    }
    assert len({(record.cell, record.sample) for record in log.records}) == len(log.records)
    assert read_log(path) == log


def test_a_record_says_what_was_answered_and_what_it_is_worth(path):
    record = rehearse(path).records[0]
    assert record.cell == Cell("one", "full", "1.0", 0)
    assert (record.sample, record.prompt, record.said, record.score) == ("0-0", "asked 0-0", "0", 1)
    assert (record.kept, record.bytes_stored, record.bytes_full) == (0.5, 50, 100)
    assert record.error is None


def test_the_log_says_who_ran(path):
    (who,) = rehearse(path).runs
    assert who.model == "numbers" and who.revision.startswith("weights ")
    assert who.settings["dtype"] == "float32" and who.settings["batch"] == 2
    assert who.tasks["one"] == repr(rehearsal.grid().tasks[0])
    assert who.methods["snapkv @ 0.1"] == repr(Entry("snapkv").method(0.1))
    assert set(who.versions) == {"python", "foveate", "torch", "transformers"}
    assert who.commit != "unknown"


def test_early_results_cover_all_cells(path):
    cells = [record.cell for record in rehearse(path).records]
    assert len(cells) == 50  # 10 cells; the first slice of each has two samples
    assert len(set(cells[:20])) == 10 and len(set(cells[20:40])) == 10


def test_what_is_done_is_not_done_again(path, monkeypatch):
    first = rehearse(path, rehearsal.grid(number=3))
    asked = []

    def answers(self, task, samples, method, *, measures=None):
        asked.extend((task.name, sample.id, repr(method)) for sample in samples)
        return [self._answer(task, sample, method) for sample in samples]

    monkeypatch.setattr(rehearsal.Rote, "answers", answers)
    second = rehearse(path, rehearsal.grid(number=5))
    assert len(asked) == len(set(asked)) == 20
    assert {name for _, name, _ in asked} == {"0-3", "0-4"}
    assert first.records == second.records[:30] and len(second.records) == 50
    assert [run.settings["number"] for run in second.runs] == [3, 5]


def test_a_finished_grid_needs_no_model(path):
    def nothing():
        raise AssertionError("the model was loaded")

    log = rehearse(path)
    again = run(rehearsal.grid(), nothing, path, setting=rehearsal.setting())
    assert again == log


@pytest.mark.parametrize(
    ("name", "value"), [("storage", "ragged"), ("quantized", "hqq"), ("fidelity", True)]
)
def test_a_finished_grid_is_not_one_of_other_settings(path, name, value):
    rehearse(path)
    with pytest.raises(InputError, match=f"begun with {name} .*, and now it is {value}"):
        rehearse(path, setting=dataclasses.replace(rehearsal.setting(), **{name: value}))


def test_progress_counts_samples_and_failures(path):
    seen = []
    grid = rehearsal.grid(facts={3: {"raises": "memory"}})
    rehearse(path, grid, on_progress=seen.append)
    assert (seen[0].done, seen[0].total, seen[0].failed) == (0, 50, 0)
    assert (seen[-1].done, seen[-1].total, seen[-1].failed) == (50, 50, 8)
    assert all(before.done < after.done for before, after in itertools.pairwise(seen[1:]))
    rehearse(path, grid, on_progress=seen.append)
    assert (seen[-1].done, seen[-1].failed) == (50, 8)


@pytest.mark.parametrize("kind", ["memory", "method"])
def test_a_crash_is_a_failed_sample_with_its_traceback(path, kind):
    log = rehearse(path, rehearsal.grid(facts={2: {"raises": kind}}))
    failed = [record for record in log.records if record.error is not None]
    assert {record.sample for record in failed} == {"0-2"}
    assert len(failed) == 8  # all but the full cache
    assert all(record.score is None and "no room" in record.error for record in failed)
    assert all("Traceback" in record.error for record in failed)
    alone = [record for record in log.records if record.sample == "0-3"]  # of the same batch
    assert len(alone) == 10 and all(record.score is not None for record in alone)


def test_failed_samples_are_done_again_when_asked_for(path):
    facts = {2: {"raises": "memory"}}
    rehearse(path, rehearsal.grid(facts=facts))
    rehearse(path, rehearsal.grid(facts=facts))
    assert len(path.read_text().splitlines()) == 1 + 50
    facts = {2: {"raises": "memory"}}
    grid = rehearsal.grid(facts=facts)
    calls = []
    again = rehearse(path, grid, retry_failed=True, on_progress=calls.append)
    assert (calls[0].done, calls[0].failed) == (42, 0)
    assert len(path.read_text().splitlines()) == 2 + 50 + 8
    assert len(again.records) == 50 and read_log(path) == again


@pytest.mark.parametrize(("said", "what"), [(float("nan"), "nan"), (1.5, "1.5")])
def test_a_score_that_is_none_is_a_failed_sample(path, said, what):
    grid = rehearsal.grid()
    metric = dataclasses.replace(grid.tasks[0].metric, score=lambda words, sample: said)
    grid = dataclasses.replace(grid, tasks=(dataclasses.replace(grid.tasks[0], metric=metric),))
    log = rehearse(path, grid)
    assert all(record.score is None for record in log.records)
    assert all(f"metric exact gave {what}" in record.error for record in log.records)
    assert all(record.said for record in log.records)


def test_methods_that_cannot_be_are_refused_before_anything_is_loaded(path):
    grid = Grid(rehearsal.grid().tasks, (Entry("snapkv", {"windw": 3}),), (0.5,))
    with pytest.raises(MethodError, match="windw"):
        run(grid, None, path)
    assert not path.exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"keeps": (0.5, 0.5)}, "keep 0.5 came twice"),
        ({"seeds": (1, 1)}, "seed 1 came twice"),
        ({"entries": (Entry("snapkv"), Entry("snapkv"))}, "method snapkv came twice"),
        ({"tasks": rehearsal.grid().tasks * 2}, "task one came twice"),
        ({"tasks": ()}, "needs a task"),
        ({"number": 0}, "at least 1"),
        ({"entries": (Entry("full", {"window": 3}),)}, "has no option window; leave it out"),
        ({"entries": (Entry("snapkv", label="full"),)}, "snapkv is labelled full"),
    ],
)
def test_grids_that_make_no_sense_are_refused(fields, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(rehearsal.grid(), **fields)


def test_the_full_cache_is_there_once_even_if_it_is_named():
    grid = dataclasses.replace(rehearsal.grid(), entries=(FULL, Entry("snapkv")))
    assert [entry.label for entry, _ in grid.rows()] == ["full", "snapkv", "snapkv"]


@pytest.mark.parametrize("dies", ["always", "while it speaks"])
def test_processes_answer_what_one_does_although_some_die(path, tmp_path, dies):
    grid = rehearsal.grid(facts={3: {"dies": dies}}, keeps=(0.5,))
    grid = dataclasses.replace(grid, tasks=grid.tasks[:1], entries=grid.entries[:1])
    log = rehearse(path, grid, workers=2)
    assert log.runs[0].settings["workers"] == 2
    (failed,) = [record for record in log.records if record.error is not None]
    assert (failed.cell.entry, failed.sample, failed.score) == ("snapkv", "0-3", None)
    assert "died twice" in failed.error and "-9" in failed.error
    alone = answers(rehearse(tmp_path / "alone.jsonl", rehearsal.grid()))
    found = answers(log)
    del found[failed.cell, failed.sample]
    assert len(found) == 9 and all(alone[key] == one for key, one in found.items())


def test_a_broken_accelerator_fails_no_other_sample(path):
    grid = rehearsal.grid(facts={3: {"breaks": "for good"}}, keeps=(0.5,))
    grid = dataclasses.replace(grid, tasks=grid.tasks[:1], entries=grid.entries[:1])
    with pytest.raises(FoveateError, match=r"broke .*illegal memory.* give the same command again"):
        rehearse(path, grid)
    assert all(one.error is None for one in read_log(path).records)
    log = rehearse(path, grid, workers=2)
    (failed,) = [one for one in log.records if one.error is not None]
    assert failed.sample == "0-3" and "died twice" in failed.error and len(log.records) == 10


def broken():
    raise InputError("there is no such model; give another")


def dead():
    sys.exit(3)


@pytest.mark.parametrize(
    ("load", "error", "message"),
    [(broken, InputError, "no such model"), (dead, FoveateError, r"exit code 3.*--workers")],
)
def test_models_that_do_not_load_in_a_process_are_an_error(load, error, message):
    work = Work(load, rehearsal.setting(), {}, {}, None)
    with pytest.raises(error, match=message) as raised:
        Processes(work, 1)
    assert type(raised.value) is error


SLOWLY = """
import sys
sys.path.insert(0, sys.argv[1])
import rehearsal
from foveate.eval.grid import run
if __name__ == "__main__":
    grid = rehearsal.grid(number=20, seeds=(1, 2))
    run(grid, rehearsal.load, sys.argv[2], setting=rehearsal.setting(pause=0.02),
        workers=2)
"""


def test_a_killed_grid_goes_on_with_nothing_lost_or_doubled(path, tmp_path):
    grid = rehearsal.grid(number=20, seeds=(1, 2))
    script = tmp_path / "slowly.py"
    script.write_text(SLOWLY)
    words = [sys.executable, script, Path(rehearsal.__file__).parent, path]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        wait_for(process, path, 40)
        process.kill()
        assert process.stdout.read() == b""  # so all that had it open have ended
    assert process.returncode == -signal.SIGKILL
    with path.open("ab") as file:  # what a kill can leave
        file.write(b'{"record": {"cell": {"task": "one", "ent')
    killed = read_log(path)
    assert 39 <= len(killed.records) < 400
    log = rehearse(path, grid)
    assert log.records[: len(killed.records)] == killed.records
    assert answers(log) == answers(rehearse(tmp_path / "undisturbed.jsonl", grid))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == 2 + 400 and len(read_log(path).records) == 400


def wait_for(process, path, lines):
    while not path.exists() or path.read_bytes().count(b"\n") < lines:
        assert process.poll() is None
        time.sleep(0.01)


def test_a_changed_model_method_or_task_does_not_go_on_with_a_log(path):
    rehearse(path)
    other = partial(rehearsal.load, 2.0)
    more = rehearsal.grid(number=6)
    with pytest.raises(InputError, match=r"begun with numbers .weights .*another file"):
        run(more, other, path, setting=rehearsal.setting())
    entries = (Entry("snapkv", {"window": 3}, "snapkv"),)
    with pytest.raises(InputError, match=r"snapkv @ 0.5, one of its methods"):
        rehearse(path, dataclasses.replace(more, entries=entries))
    tasks = tuple(dataclasses.replace(task, max_new_tokens=3) for task in more.tasks)
    with pytest.raises(InputError, match=r"one, one of its tasks.*max_new_tokens=32.*=3"):
        rehearse(path, dataclasses.replace(more, tasks=tasks))
    with pytest.raises(InputError, match="begun with storage dense, and now it is ragged"):
        rehearse(path, more, setting=dataclasses.replace(rehearsal.setting(), storage="ragged"))
    assert len(read_log(path).records) == 50 and len(read_log(path).runs) == 1


@pytest.mark.parametrize("workers", [1, 2])
def test_a_sample_that_has_changed_between_methods_is_noticed(path, workers):
    rehearse(path, rehearsal.grid(keeps=()))
    setting = rehearsal.setting(answerer=rehearsal.Repainted)
    with pytest.raises(InputError, match=r"sample 0-3 of (one|two) is not what it was when other"):
        rehearse(path, setting=setting, workers=workers)
    log = read_log(path)
    assert not any(record.prompt == "another picture" for record in log.records)
    assert len(rehearse(path).records) == 50


def test_a_sample_that_changes_while_a_run_goes_on_is_noticed(path):
    with pytest.raises(InputError, match="sample 0-3 of one is not what it was"):
        rehearse(path, setting=rehearsal.setting(answerer=rehearsal.Repainted))


def test_later_turns_hold_what_the_method_said(path):
    task = Task("two-turns", rehearsal.Numbers(turns=2), Metric("exact", rehearsal.exact))
    grid = dataclasses.replace(rehearsal.grid(), tasks=(task,))
    rehearse(path, grid, setting=rehearsal.setting(answerer=rehearsal.Repainted))
    assert any(record.prompt == "another picture" for record in read_log(path).records)


def test_a_grid_has_the_samples_of_a_log_that_it_asks_for(path):
    log = rehearse(path, rehearsal.grid(number=5))
    few = rehearsal.grid(number=2, keeps=(0.1,)).part_of(log)
    assert {record.sample for record in few.records} == {"0-0", "0-1"}
    assert {record.cell.keep for record in few.records} == {"1.0", "0.1"}
    assert len(few.records) == 2 * 3 * 2 and few.runs == log.runs
    assert rehearsal.grid(number=7).part_of(log) == log


def test_samples_of_one_name_are_refused(path):
    class Twins(rehearsal.Numbers):
        def samples(self, number, seed):
            return [*super().samples(1, seed), *super().samples(1, seed)]

    grid = rehearsal.grid()
    tasks = (dataclasses.replace(grid.tasks[0], source=Twins()),)
    with pytest.raises(InputError, match=r"'0-0' of full at keep=1.0 on one.*twice.*must differ"):
        rehearse(path, dataclasses.replace(grid, tasks=tasks))


def test_a_task_without_samples_is_refused(path):
    class Nothing(rehearsal.Numbers):
        def samples(self, number, seed):
            return []

    grid = rehearsal.grid()
    tasks = (dataclasses.replace(grid.tasks[0], source=Nothing()),)
    with pytest.raises(InputError, match="task one has no samples"):
        rehearse(path, dataclasses.replace(grid, tasks=tasks))

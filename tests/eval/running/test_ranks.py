"""Processes that were launched together share a grid: one log, nothing lost, nothing doubled."""

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import torch

import ranks_worker
import rehearsal
from foveate.errors import FoveateError, InputError
from foveate.eval.grid import run
from foveate.eval.log import read_log
from foveate.eval.running import ranks
from foveate.eval.running.journal import Journal
from foveate.eval.running.parts import adopt, part
from launching import environment, launched

LIMIT = 180  # seconds
NEVER = 10_000
TORCHRUN = {
    "RANK": "1",
    "WORLD_SIZE": "2",
    "LOCAL_RANK": "1",
    "MASTER_ADDR": "a",
    "MASTER_PORT": "1",
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "numbers.jsonl"


def work(path, *, pause=0.0, dies=NEVER, restarts=0):
    return launched(ranks_worker.__file__, path, pause, dies, restarts=restarts)


def finish(process):
    said = process.communicate(timeout=LIMIT)[0]
    assert process.returncode == 0, said[-3000:]


def answers(log):
    """What was answered, without the time that it took."""
    return {
        (record.cell, record.sample): dataclasses.replace(record, seconds=0.0)
        for record in log.records
    }


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    path = tmp_path_factory.mktemp("alone") / "numbers.jsonl"
    return answers(run(ranks_worker.grid(), rehearsal.load, path, setting=rehearsal.setting()))


def check_whole(path, alone):
    """The log has every answer once, as one process gives it, and no part is left."""
    log = read_log(path)
    assert answers(log) == alone
    assert path.read_bytes().count(b"\n") == len(log.runs) + len(alone)
    assert not list(path.parent.glob("*.part*"))


def lines(path):
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_a_killed_process_loses_nothing_whoever_goes_on(path, tmp_path, alone):
    with work(path, pause=0.02) as process:
        while min(lines(path), lines(part(path, 1))) < 20:
            assert process.poll() is None, process.stdout.read()[-3000:]
            time.sleep(0.01)
        os.kill(int((path.parent / f"{path.name}.pid1").read_text()), signal.SIGKILL)
        said = process.communicate(timeout=LIMIT)[0]
    assert process.returncode == 1 and "Signal 9 (SIGKILL)" in said
    with part(path, 1).open("ab") as file:  # what a kill can leave
        file.write(b'{"record": {"cell": {"task": "one", "ent')
    left = len(alone) - lines(path) - lines(part(path, 1)) + 2
    assert left > 0
    other = tmp_path / "copy" / path.name
    other.parent.mkdir()
    for file in (path, part(path, 1)):
        shutil.copy(file, part(other, 1) if file == part(path, 1) else other)
    with work(path) as process:
        finish(process)
    check_whole(path, alone)
    told = [(path.parent / f"{path.name}.end{rank}").read_text().split() for rank in (0, 1)]
    assert [total for _, total in told] == ["400", "400"]
    assert sum(int(mine) for mine, _ in told) == left
    run(ranks_worker.grid(), rehearsal.load, other, setting=rehearsal.setting())
    check_whole(other, alone)


def test_a_launcher_that_restarts_finishes_a_run_of_which_a_process_died(path, alone):
    with work(path, pause=0.002, dies=30, restarts=1) as process:
        finish(process)
    check_whole(path, alone)
    log = read_log(path)
    assert [one.settings["processes"] for one in log.runs] == [2, 2]


def test_the_command_prints_one_table_that_is_the_one_of_one_process(path):
    words = ["eval", "lookup-144", "--number", "4", "--batch", "1", "--methods", "random"]
    words += ["--keep", "0.5", "--device", "cpu"]
    single = path.with_name("single.jsonl")
    with launched("-m", "foveate", *words, "--out", path) as process:
        command = [sys.executable, "-m", "foveate", *words, "--out", single]
        told = subprocess.run(command, env=environment(), capture_output=True, text=True)
        said = process.communicate(timeout=LIMIT)[0]
    assert process.returncode == 0, said
    table = told.stdout.split("log:")[0]
    assert "random" in table and said.count(table) == 1
    assert answers(read_log(path)) == answers(read_log(single))


def test_what_the_first_process_refuses_is_said_once_and_leaves_nothing_behind(path):
    begun(path, 3)  # with another model
    before = path.read_bytes()
    words = ["eval", "lookup-144", "--number", "1", "--device", "cpu", "--out", path]
    with launched("-m", "foveate", *words) as process:
        said = process.communicate(timeout=LIMIT)[0]
    assert process.returncode == 1 and said.count("begun with model numbers") == 1, said
    assert path.read_bytes() == before and not part(path, 1).exists()
    assert "Traceback" not in said.split("ChildFailedError")[0].split("elastic")[0]


def begun(path, number, **options):
    return run(
        rehearsal.grid(number=number), rehearsal.load, path, setting=rehearsal.setting(), **options
    )


def test_a_part_is_taken_in_once_however_often_a_kill_interrupts(path):
    more = begun(part(path, 1), 5)
    kept = part(path, 1).read_bytes()
    part(path, 1).unlink()
    begun(path, 3)
    for _ in range(2):  # the second time, the log has all of it: killed before the part was removed
        part(path, 1).write_bytes(kept)
        with Journal(path) as journal:
            adopt(journal)
        assert answers(read_log(path)) == answers(more)
        assert len(read_log(path).records) == 50 == lines(path) - len(read_log(path).runs)
        assert not part(path, 1).exists()
    assert len(read_log(path).runs) == 2  # numbers differ: 5 and 3


def test_a_copy_of_a_part_is_left_alone(path):
    copy = part(path, 1).with_suffix(".part1.bak")
    begun(path, 3)
    shutil.copy(path, copy)
    begun(path, 5)
    assert copy.exists()


def test_a_part_without_its_log_becomes_the_log(path):
    more = begun(part(path, 3), 5)
    assert begun(path, 5) == more
    assert lines(path) == 51 and not part(path, 3).exists()


def test_samples_that_failed_are_taken_from_a_part_that_did_them_again(path, monkeypatch):
    trouble = rehearsal.grid(facts={2: {"raises": "memory"}})
    run(trouble, rehearsal.load, path, setting=rehearsal.setting())
    shutil.copy(path, part(path, 1))
    again = run(trouble, rehearsal.load, path, setting=rehearsal.setting())
    assert lines(path) == 51 and sum(one.error is not None for one in again.records) == 8
    monkeypatch.setattr(rehearsal, "_trouble", lambda facts: None)
    run(trouble, rehearsal.load, part(path, 1), setting=rehearsal.setting())
    mended = run(trouble, rehearsal.load, path, setting=rehearsal.setting())
    assert len(mended.records) == 50 and all(one.error is None for one in mended.records)
    assert lines(path) == 51 + 8 and len(read_log(path).records) == 50


def test_a_part_of_another_model_is_refused_and_kept(path):
    begun(path, 3)
    run(
        rehearsal.grid(),
        lambda: rehearsal.load(2.0),
        part(path, 1),
        setting=rehearsal.setting(),
    )
    with pytest.raises(InputError, match=r"part1: begun with numbers .*now it is numbers"):
        begun(path, 5)
    assert lines(path) == 31 and lines(part(path, 1)) == 51


def test_a_part_that_somebody_writes_to_is_refused(path):
    begun(part(path, 1), 3)
    with Journal(part(path, 1)), pytest.raises(InputError, match=r"another run .*part1"):
        begun(path, 5)


def test_answers_that_went_to_another_folder_are_missed(path):
    class Afar(ranks.Alone):
        """The first of two processes, of which the other has a disk of its own."""

        def take(self, units):
            return iter(units[::2])

    run(rehearsal.grid(number=6, keeps=()), rehearsal.load, path, setting=rehearsal.setting())
    with pytest.raises(FoveateError, match="16 answers of other processes are not in its folder"):
        begun(path, 4, team=Afar())
    assert len(begun(path, 4).records) == 40 + 4


def test_only_a_launcher_s_environment_makes_a_team(monkeypatch):
    assert ranks.launched(TORCHRUN)
    assert not ranks.launched(TORCHRUN | {"WORLD_SIZE": "1"})
    assert not ranks.launched({name: TORCHRUN[name] for name in ("RANK", "WORLD_SIZE")})
    for name in TORCHRUN:
        monkeypatch.delenv(name, raising=False)
    with ranks.team() as team:
        assert (team.rank, team.size) == (0, 1)


def test_workers_beside_launched_processes_are_refused(path):
    team = ranks.Ranks(None, None, 0, 2)
    with pytest.raises(InputError, match="2 processes were launched, and --workers 3 came"):
        begun(path, 5, workers=3, team=team)
    assert not path.exists()


def together(act, size=3):
    """What every one of some processes comes to; here they are threads, with one store."""
    store = torch.distributed.HashStore()

    def one(rank):
        group = torch.distributed.ProcessGroupGloo(store, rank, size, timedelta(seconds=30))
        team = ranks.Ranks(group, store, rank, size)
        del group
        try:
            return act(team)
        finally:
            team.close()

    with ThreadPoolExecutor(size) as pool:
        futures = [pool.submit(one, rank) for rank in range(size)]
        return [future.exception() or future.result() for future in futures]


def test_all_get_what_the_first_makes():
    made = []

    def act(team):
        first = team.same(lambda: made.append(team.rank) or list(range(3000)))
        team.wait()
        return first, team.same(lambda: made.append(team.rank) or "and more")

    assert together(act) == [(list(range(3000)), "and more")] * 3 and made == [0, 0]


def test_units_are_taken_once_and_nobody_goes_on_before_all_are_there():
    there = []

    def act(team):
        team.same(lambda: None)
        mine = list(team.take(range(100)))
        there.append(team.rank)
        team.wait()
        return mine, len(there)

    said = together(act)
    assert sorted(unit for mine, _ in said for unit in mine) == list(range(100))
    assert [count for _, count in said] == [3, 3, 3]


def test_an_error_of_the_first_ends_the_others_without_a_word():
    def act(team):
        def fails():
            raise InputError("no such file")

        try:
            return team.same(fails)
        except SystemExit as end:  # which a pool does not take
            return end.code

    said = together(act)
    assert str(said[0]) == "no such file" and said[1:] == [1, 1]


def test_who_leaves_with_an_error_is_not_waited_for():
    def act(team):
        team.same(lambda: None)
        if team.rank == 1:
            return team.close()
        return team.wait()

    said = together(act)
    assert said[1] is None
    for other in (said[0], said[2]):
        assert isinstance(other, FoveateError) and "another process of this run ended" in str(other)


def test_a_lost_connection_says_what_to_do():
    class Gone:
        def add(self, key, number):
            raise RuntimeError("Connection reset by peer")

    with pytest.raises(FoveateError, match=r"another process .*reset by peer.*same command again"):
        next(ranks.Ranks(None, Gone(), 1, 2).take([1, 2]))


def test_processes_take_the_accelerators_in_turn(monkeypatch):
    taken = []
    monkeypatch.setattr(ranks.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(ranks.torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(ranks.torch.cuda, "set_device", taken.append)
    for local in range(3):
        ranks._take_accelerator(local)
    assert taken == [0, 1, 0]

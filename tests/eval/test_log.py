"""A log holds what was written, all of it, whatever happened to whoever wrote it."""

import dataclasses
import errno
import json
import math
import os
import re
import subprocess
import sys

import pytest

from foveate.errors import FoveateError, InputError
from foveate.eval.log import Log, read_log
from foveate.eval.record import VERSION, Cell, Record, Run
from foveate.eval.running.journal import Journal

CELL = Cell("lookup", "snapkv", "0.1", 3)
FULL = Cell("lookup", "full", "1.0", 3)
RUN = Run(
    model="embedded",
    revision="weights 12",
    commit="abc",
    date="2026-11-21",
    versions={"torch": "2"},
    machine={"cores": 2},
    settings={"storage": "dense", "dtype": "float32", "seeds": [3]},
    tasks={"lookup": "Task(...)"},
    methods={"snapkv @ 0.1": "Method(...)"},
)


def record(sample, cell=CELL, score=1.0, **fields):
    return Record(cell, sample, "d1ge57", "sæid\n", score, **fields)


def written(path, *records, who=RUN):
    with Journal(path) as journal:
        journal.begin(who)
        journal.append(records)
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "log.jsonl"


def test_what_is_written_is_read_again(path):
    records = (
        record("a", kept=0.1, bytes_stored=17, bytes_full=170, seconds=0.1 + 0.2),
        record("b", score=1 / 3, measures={"kl": 1e-300, "perplexity": math.inf}),
        record("c", score=None, error='Traceback\n  "..."'),
    )
    assert read_log(written(path, *records)) == Log((RUN,), records)
    for line in path.read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)  # neither NaN nor Infinity


def test_records_are_on_the_disk_when_append_returns(path, monkeypatch):
    kept = []
    monkeypatch.setattr(os, "fsync", lambda file: kept.append(path.read_bytes().count(b"\n")))
    with Journal(path) as journal:
        journal.begin(RUN)
        journal.append([record("a"), record("b")])
        journal.append([record("c")])
    assert kept == [1, 3, 4]


@pytest.mark.parametrize("torn", [b'{"rec', b'{"record": {"cell": {"task"', b"\0\0\0\0", b"\0\0\n"])
def test_a_torn_last_line_is_left_out_and_cut_off(path, torn):
    written(path, record("a"))
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    assert [one.sample for one in read_log(path).records] == ["a"]
    assert path.read_bytes() == whole + torn  # reading changes nothing
    with Journal(path) as journal:
        assert path.read_bytes() == whole
        journal.begin(RUN)
        journal.append([record("b")])
    assert [one.sample for one in read_log(path).records] == ["a", "b"]


def test_a_log_torn_in_its_first_line_begins_anew(path):
    written(path)
    path.write_bytes(path.read_bytes()[:20])
    assert read_log(written(path, record("a"))) == Log((RUN,), (record("a"),))


def test_a_log_in_which_nothing_began_leaves_no_file(path):
    with Journal(path):
        assert path.exists()
    assert not path.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("# Notes\n", "no log of `foveate eval`: line 1 begins '# Notes"),
        ("\x89PNG without an end", "no log of `foveate eval`"),
        ('{"record": 1}\n', "line 1 is no record"),
        ("[1]\n", "line 1 begins"),
        ('{"run": {"version": 99}}\n', f"version 99, and this .* version {VERSION}; give another"),
        ('{"run": {"version": 1, "model": 3}}\n', "line 1 is no run"),
    ],
)
def test_what_is_no_log_is_refused_and_left_alone(path, content, message):
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        read_log(path)
    if content:
        with pytest.raises(InputError, match=message):
            Journal(path)
        assert path.read_text() == content


def test_logs_that_are_damaged_inside_are_refused(path):
    written(path, record("a"), record("b"))
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[1][:-9], lines[2], ""]))
    with pytest.raises(InputError, match="line 2 begins"):
        read_log(path)


def test_records_that_come_twice_are_refused(path):
    written(path, record("a"))
    with Journal(path) as journal:
        with pytest.raises(InputError, match=r"'a' of snapkv at keep=0.1 on lookup, seed 3 comes"):
            journal.append([record("a")])
        with pytest.raises(InputError, match="comes twice"):
            journal.append([record("b"), record("b")])
    assert [one.sample for one in read_log(path).records] == ["a"]
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, lines[-1], ""]))
    with pytest.raises(InputError, match="line 3: sample 'a'"):
        read_log(path)


def test_a_failed_sample_may_be_done_again(path):
    lost = record("a", score=None, error="no room")
    written(path, lost, record("b"))
    with Journal(path) as journal:
        journal.append([record("a")])
    assert read_log(path).records == (record("a"), record("b"))


def test_several_logs_are_read_as_one(tmp_path):
    full = record("a", FULL)
    first = written(tmp_path / "1", full, record("a"))
    other = dataclasses.replace(CELL, keep="0.5")
    second = written(tmp_path / "2", dataclasses.replace(full, seconds=9.0), record("a", other))
    log = read_log(first, second)
    assert len(log.runs) == 2
    assert log.records == (full, record("a"), record("a", other))


@pytest.mark.parametrize(
    ("records", "changes", "message"),
    [
        ([record("a")], {}, "'a' of snapkv .* in an earlier log"),
        ([record("a", FULL, 0.0)], {}, "'a' of full .* in an earlier log"),
        ([], {"revision": "weights 13"}, r"embedded \(weights 12\).*embedded \(weights 13\)"),
        ([], {"tasks": {"lookup": "Task(3)"}}, r"lookup, one of its tasks, was Task\(...\)"),
        ([], {"methods": {"snapkv @ 0.1": "M"}}, r"snapkv @ 0.1, one of its methods.*it is M"),
        ([], {"settings": {"storage": "ragged", "dtype": "float32"}}, "storage dense.* ragged"),
    ],
)
def test_logs_that_disagree_are_refused(tmp_path, records, changes, message):
    first = written(tmp_path / "1", record("a"), record("a", FULL))
    second = written(tmp_path / "2", *records, who=dataclasses.replace(RUN, **changes))
    with pytest.raises(InputError, match=message):
        read_log(first, second)


def test_another_commit_may_go_on(path):
    written(path, record("a"))
    written(path, record("b"), who=dataclasses.replace(RUN, commit="def", machine={}))
    assert [run.commit for run in read_log(path).runs] == ["abc", "def"]


def test_a_disk_that_knows_no_locks_holds_logs_all_the_same(path, monkeypatch):
    def unknown(file, what):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", unknown)
    written(path, record("a"))
    assert len(read_log(path).records) == 1


def test_two_runs_cannot_write_to_one_log(path):
    code = "import sys; from foveate.eval.running.journal import Journal; Journal(sys.argv[1])"
    with Journal(path) as journal:
        journal.begin(RUN)
        with pytest.raises(InputError, match="another run is writing"):
            Journal(path)
        done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
        assert done.returncode == 1 and "another run is writing" in done.stderr
        journal.append([record("a")])
    assert len(read_log(path).records) == 1
    Journal(path).__exit__()


class Full:
    """A file whose disk has room for so many more bytes."""

    def __init__(self, file, room, code):
        self._file, self._room, self._code = file, room, code

    def write(self, data):
        if self._room == 0:
            raise OSError(self._code, os.strerror(self._code))
        written = self._file.write(data[: self._room])
        self._room -= written
        return written

    def __getattr__(self, name):
        return getattr(self._file, name)


@pytest.mark.parametrize("room", [0, 1, 40, 300])
@pytest.mark.parametrize(
    ("code", "says"), [(errno.ENOSPC, "the disk is full"), (errno.EIO, "Input/output error")]
)
def test_a_full_disk_loses_nothing_that_was_written(path, room, code, says):
    with Journal(path) as journal:
        journal.begin(RUN)
        journal.append([record("a")])
        whole = path.read_bytes()
        journal._file = Full(journal._file, room, code)
        with pytest.raises(
            FoveateError, match=f"{says}.* what is in it, 1 answers, is safe"
        ) as raised:
            journal.append([record("b"), record("c")])
        assert not isinstance(raised.value, InputError)
        assert path.read_bytes() == whole
    with Journal(path) as journal:
        journal.append([record("b"), record("c")])
    assert len(read_log(path).records) == 3


def test_a_part_for_which_there_is_no_room_names_its_log(path):
    with Journal(path.with_suffix(".part1"), path) as journal:
        journal.begin(RUN)
        journal._file = Full(journal._file, 0, errno.ENOSPC)
        with pytest.raises(FoveateError, match=rf"part1: .* with --out {re.escape(str(path))}$"):
            journal.append([record("a")])


def test_an_interrupt_while_writing_leaves_whole_lines(path):
    class Interrupted(Full):
        def write(self, data):
            super().write(data[:7])
            raise KeyboardInterrupt

    with Journal(path) as journal:
        journal.begin(RUN)
        whole = path.read_bytes()
        journal._file = Interrupted(journal._file, 100, 0)
        with pytest.raises(KeyboardInterrupt):
            journal.append([record("a")])
    assert path.read_bytes() == whole


def test_places_that_cannot_be_written_are_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot be written to.*folder of yours"):
        Journal(tmp_path / "file" / "log.jsonl")
    with pytest.raises(InputError, match="cannot be written to"):
        Journal(tmp_path)
    with pytest.raises(InputError, match="cannot be written to: it is no regular file"):
        Journal("/dev/null")
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_log(tmp_path / "nowhere")

"""`foveate eval`: tables and a log, a run that goes on where it stopped, or a reason why not."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from foveate.cli.grids import _taken_apart
from foveate.errors import FoveateError
from foveate.eval.log import read_log
from foveate.eval.running.journal import Journal
from foveate.eval.running.parts import part
from foveate.eval.running.unit import Desk
from foveate.eval.studies.parts import measured

SMALL = ("lookup-144", "--number", "2", "--batch", "2", "--device", "cpu")


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log.jsonl"


@pytest.fixture
def small(run, untrained, log):
    """Run a grid of four cells and eight samples on an untrained model."""

    def small(*words, methods="snapkv,random", keep="0.5"):
        return run("eval", *SMALL, "--methods", methods, "--keep", keep, "--out", log, *words)

    return small


def test_a_table_shows_every_method_at_every_budget(small, log):
    done = small("row-144", keep="0.5,64")
    assert done.code == 0
    assert done.out.count("n = 2 for each task") == 3  # a table for each family, one of bytes
    (heads, full, snapkv, random) = [
        [cell.strip() for cell in line.strip("┃│").replace("┃", "│").split("│")]
        for line in done.out.split("lookup-144")[1].splitlines()
        if line[:1] in "┃│" and line
    ][:4]
    assert heads == ["method", "50%", "64"]
    assert [row[0] for row in (full, snapkv, random)] == ["full cache", "snapkv", "random"]
    assert all("±" in cell for row in (full, snapkv, random) for cell in row[1:])
    assert str(log) in done.out and "McNemar" in done.out
    assert len(read_log(log).records) == 2 * (1 + 2 * 2) * 2
    assert "of 20" in done.err and "loading the model" in done.err


def test_the_full_cache_alone_has_its_score(small):
    done = small("row-144", methods="full")
    assert done.code == 0
    rows = [line for line in done.out.splitlines() if line.startswith("│ full cache")]
    assert len(rows) == 2 and all("±" in row for row in rows)


def test_json_says_what_was_found_and_where_from(small, log):
    done = small("--json")
    found = json.loads(done.out)
    assert found["log"] == str(log) and found["model"] == "embedded"
    assert found["revision"].startswith("weights ") and set(found["methods"]) == {
        "full @ 1.0", "snapkv @ 0.5", "random @ 0.5"
    }  # fmt: skip
    full, snapkv, random = found["outcomes"]
    assert (full["entry"], full["keep"], full["n"], full["failed"]) == ("full", "1.0", 2, 0)
    assert (full["kept"], full["bytes"], full["comparisons"]) == (1.0, 1.0, [])
    assert snapkv["kept"] < 1 and snapkv["bytes"] < 1
    assert [one["over"] for one in snapkv["comparisons"]] == ["full"]
    assert [one["over"] for one in random["comparisons"]] == ["full", "snapkv"]
    assert all(0 <= one["p"] <= 1 and one["n"] == 2 for one in random["comparisons"])


def test_a_log_goes_on_and_is_the_same_as_one_that_never_stopped(small, log, monkeypatch):
    class Stopped(Exception):
        pass

    def append(self, records, before=Journal.append):
        if len(self.records) == 4:
            raise Stopped
        before(self, records)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", append)
        with pytest.raises(Stopped):
            small()
    assert len(read_log(log).records) == 4
    resumed = small()
    assert resumed.code == 0 and "4 of 6" in resumed.err and len(read_log(log).runs) == 2
    again = small()
    assert again.out == resumed.out and len(read_log(log).runs) == 2
    log.unlink()
    assert small().out == resumed.out


def test_failed_samples_are_counted_and_done_again_when_asked_for(small, log, monkeypatch):
    def answered(self, cell, samples, before=Desk._answered):
        if cell.entry == "random" and any("rows" in sample.id for sample in samples):
            raise MemoryError("no room")
        return before(self, cell, samples)

    with monkeypatch.context() as patch:
        patch.setattr(Desk, "_answered", answered)
        done = small()
    assert done.code == 0 and "1 failed" in done.out and "Failed: 1, without a score" in done.out
    assert "1 failed" in done.err
    assert "no room" in log.read_text()
    assert "1 failed" in small().out
    mended = small("--retry-failed")
    assert "1 failed" not in mended.out and "Failed" not in mended.out
    assert len(read_log(log).records) == 6


def test_fidelity_is_measured_beside_the_score(small):
    done = small("--fidelity", methods="random", keep="1.0")
    assert done.code == 0
    told = done.out.split("full cache is followed")[1]
    rows = [line.strip("│").split("│") for line in told.splitlines() if line[:1] == "│"]
    found = {tuple(word.strip() for word in row[:2]): row[2].strip() for row in rows}
    assert [found[name, "random"] for name in ("agreement", "divergence", "kl")] == ["1", "8", "0"]


def test_a_measure_without_end_is_not_shown_as_zero(small, log):
    small("--fidelity", methods="random")
    lines = log.read_text().splitlines()
    for number, line in enumerate(lines):
        told = json.loads(line)
        if told.get("record", {}).get("cell", {}).get("entry") == "random":
            told["record"]["measures"]["kl"] = "inf"
            lines[number] = json.dumps(told)
    assert '"kl": "inf"' in lines[-1]
    log.write_text("\n".join(lines) + "\n")
    done = small("--fidelity", methods="random,snapkv")
    rows = [line for line in done.out.splitlines() if line.startswith("│ kl ")]
    random, snapkv = (row.strip("│").split("│")[2].strip() for row in rows)
    assert random == "" and float(snapkv) >= 0


def test_options_make_methods_of_their_own(run, untrained, log):
    words = ("--entry", "snapkv(window=9)", "--entry", "random", "--keep", "0.5", "--out", log)
    done = run("eval", *SMALL, *words, "--json")
    entries = [one["entry"] for one in json.loads(done.out)["outcomes"]]
    assert entries == ["full", "snapkv(window=9)", "random"]
    assert json.loads(done.out)["outcomes"][2]["comparisons"][1]["over"] == "snapkv(window=9)"


def test_files_of_ones_own_are_a_task(run, untrained, page, log, tmp_path):
    table = tmp_path / "pages.jsonl"
    rows = [{"image": page, "question": f"{key}?", "answer": "x"} for key in "ABC"]
    table.write_text("\n".join(map(json.dumps, rows)))
    words = ("--data", table, "--methods", "random", "--keep", "0.5", "--metric", "anls")
    done = run("eval", *words, "--max-new-tokens", "4", "--out", log, "--json")
    assert done.code == 0, done.err
    full, random = json.loads(done.out)["outcomes"]
    assert (full["task"], full["n"], random["n"]) == ("pages", 3, 3)
    assert full["failed"] == random["failed"] == 0
    assert "anls" in json.loads(done.out)["tasks"]["pages"]


def test_several_files_are_a_task_each_with_shapes_of_their_own(
    run, untrained, page, log, tmp_path
):
    for name, answer in (("one", "answers"), ("two", "answer")):
        table = tmp_path / name / "test.json"
        table.parent.mkdir()
        table.write_text(json.dumps([{"image": page, "question": "A?", answer: "x"}]))
    data = (f"docvqa={tmp_path}/one/test.json", tmp_path / "two" / "test.json")
    words = ("--methods", "random", "--keep", "0.5", "--prompt", "{question}", "--metric", "exact")
    words += ("--max-new-tokens", "2", "--out", log, "--json")
    done = run("eval", "--data", data[0], "--data", data[1], *words)
    found = json.loads(done.out)
    assert [(one["task"], one["n"]) for one in found["outcomes"]] == [
        ("one/test", 1), ("one/test", 1), ("two/test", 1), ("two/test", 1)
    ]  # fmt: skip
    assert "family='docvqa'" in found["tasks"]["one/test"]
    assert "family='local'" in found["tasks"]["two/test"]
    again = run("eval", "--data", data[1], "--data", data[1], *words)
    assert (again.code, again.out) == (2, "") and "task two/test came twice" in again.err


def test_a_folder_may_be_called_like_a_shape(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docvqa").mkdir()
    (tmp_path / "a=b").mkdir()
    assert [_taken_apart(one) for one in ("docvqa", "a=b", "docvqa=a=b", "chartqa=docvqa")] == [
        ("", "docvqa"), ("", "a=b"), ("docvqa", "a=b"), ("chartqa", "docvqa")
    ]  # fmt: skip


def test_files_of_ones_own_and_built_in_tasks_share_a_number(run, untrained, page, log, tmp_path):
    table = tmp_path / "pages.json"
    table.write_text(json.dumps([{"image": page, "question": "A?", "answer": "x"}] * 3))
    words = ("lookup-144", "--data", table, "--methods", "full", "--out", log, "--json")
    done = run("eval", *words)
    assert (done.code, done.out) == (2, "") and not log.exists()
    assert "as many questions as it has rows, and lookup-144 has no end; give --number" in done.err
    done = run("eval", *words, "--number", "2")
    told = [(one["task"], one["n"]) for one in json.loads(done.out)["outcomes"]]
    assert told == [("lookup-144", 2), ("pages", 2)]


def test_a_picture_that_has_changed_is_noticed(run, untrained, page, log, tmp_path):
    table, before = tmp_path / "pages.json", Path(page).read_bytes()
    rows = [{"image": page, "question": f"{key}?", "answer": "x"} for key in "AB"]
    table.write_text(json.dumps(rows))
    words = ("--data", table, "--keep", "0.5", "--max-new-tokens", "2", "--out", log)
    assert run("eval", *words, "--methods", "random").code == 0
    Image.new("RGB", (56, 56), "red").save(page)
    answers = log.read_bytes()
    done = run("eval", *words, "--methods", "random,snapkv")
    assert (done.code, done.out) == (2, "")
    assert "sample 1 of pages is not what it was when other methods were asked" in done.err
    assert len(read_log(log).records) == 4 and log.read_bytes().startswith(answers)
    Path(page).write_bytes(before)
    assert run("eval", *words, "--methods", "random,snapkv").code == 0


def test_rows_of_a_file_are_not_counted_for_several_seeds(run, untrained, page, log, tmp_path):
    table = tmp_path / "pages.json"
    table.write_text(json.dumps([{"image": page, "question": "A?", "answer": "x"}] * 3))
    done = run("eval", "--data", table, "--seeds", "1,2", "--out", log)
    assert (done.code, done.out) == (2, "")
    assert "seeds of --data draw from the same rows" in done.err
    assert not log.exists()


@pytest.mark.parametrize(
    "words", [("--model", "org/other"), ("--dtype", "bfloat16"), ("--attn", "eager")]
)
def test_a_finished_log_is_not_shown_for_another_model(small, log, words):
    assert small().code == 0
    done = small(*words)
    assert (done.code, done.out) == (2, "")
    assert f"begun with {words[0].replace('attn', 'attention').strip('-')} " in done.err
    assert f"now it is {words[1]}" in done.err
    assert small("--dtype", "float32", "--attn", "sdpa").code == 0


@pytest.mark.parametrize("words", [("--dtype", "bfloat16"), ("--storage", "ragged")])
def test_a_part_is_not_taken_into_a_log_of_something_else(small, log, words):
    assert small().code == 0
    beside = part(log, 1)
    small("--number", "3", "--out", beside)
    before, left = log.read_bytes(), beside.read_bytes()
    done = small(*words)
    assert (done.code, done.out) == (2, "") and f"now it is {words[1]}" in done.err
    assert log.read_bytes() == before and beside.read_bytes() == left
    assert small("--number", "3").code == 0 and not beside.exists()
    assert len(read_log(log).records) == 9


def test_a_table_shows_the_samples_that_were_asked_for(small, log):
    two = small()
    more = small("--number", "3")
    assert "n = 3 for each task" in more.out and "note" not in more.err
    again = small()
    assert again.out == two.out
    assert "note: 2 samples of each task and seed were asked for, and the log has 3" in again.err
    found = json.loads(small("--json").out)
    assert [one["n"] for one in found["outcomes"]] == [2, 2, 2]
    assert len(read_log(log).records) == 9


def test_everything_is_listed(run):
    done = run("eval", "list")
    assert done.code == 0
    for word in ("lookup-256", "second-576", "headline", "docvqa", "milebench", "relaxed"):
        assert word in done.out


def test_a_study_brings_its_grid(run, untrained, monkeypatch, tmp_path):
    from dataclasses import replace

    from foveate.eval import study as module

    known = module.studies()
    headline = known["headline"]
    little = replace(headline, tasks=("row-144",), entries=headline.entries[:2], keeps=(0.5, 0.1))
    monkeypatch.setattr(module, "studies", lambda: {"headline": little})
    monkeypatch.chdir(tmp_path)
    done = run("eval", "--study", "headline", "--number", "2", "--seeds", "3,4", "--device", "cpu")
    assert done.code == 0, done.err
    records = read_log(tmp_path / "runs" / "eval" / "headline.jsonl").records
    assert len(records) == 2 * 5 * 2 and {one.cell.seed for one in records} == {3, 4}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "nothing to ask; give a task such as lookup-256, or --data, or --study"),
        (["lookup-255"], "there is no built-in task 'lookup-255'; did you mean"),
        (["lookup-256", "--methods", "snapvk"], "did you mean 'snapkv'"),
        (["lookup-256", "--methods", "snapkv", "--option", "windw=3"], "windw"),
        (["lookup-256", "--methods", "snapkv,snapkv"], "method snapkv came twice"),
        (["lookup-256", "lookup-256"], "task lookup-256 came twice"),
        (["lookup-256", "--entry", "snapkv(window=3"], "not of the form snapkv or snapkv(window="),
        (["lookup-256", "--keep", "much"], "--keep 'much' is not a number"),
        (["lookup-256", "--keep", "0.5,0.50"], "keep 0.5 came twice"),
        (["lookup-256", "--seeds", "one"], "--seeds 'one' is not understood"),
        (["lookup-256", "--seeds", "-1"], "seed -1 has no documents"),
        (["lookup-256", "--shape", "docvqa"], "--shape is about files of yours; give --data"),
        (["--data", "nowhere.json"], "nowhere.json"),
        (["--data", "docvq=nowhere.json"], "unknown shape 'docvq'; choose from docvqa"),
        (["--data", "docvqa=nowhere.json"], "no file or folder nowhere.json"),
        (["--study", "headlines"], "there is no study 'headlines'; did you mean 'headline'"),
        (["--study", "headline", "--keep", "0.5"], "brings its own tasks and methods"),
        (["--study", "headline", "--shape", "docvqa"], "leave out --shape"),
        (["--study", "headline", "--max-new-tokens", "3"], "leave out --max-new-tokens"),
        (["lookup-256", "--entry", "snapkv", "--option", "window=3"], "--option is for --methods"),
        (["lookup-256", "--methods", ","], "--methods ',' names no method"),
        (["lookup-256", "--device", "warp"], "--device 'warp'"),
        (["lookup-256", "--storage", "sparse"], "sparse"),
    ],
)
def test_bad_words_are_refused(run, untrained, log, words, says):
    done = run("eval", *words, "--out", log, "--number", "1")
    assert (done.code, done.out) == (2, "")
    assert says in done.err
    assert not log.exists()


def test_methods_that_the_model_cannot_have_are_refused_before_any_answer(run, untrained, log):
    table = measured("heads")
    done = run("eval", *SMALL, "--entry", f"sparsemm(table={table})", "--out", log)
    assert (done.code, done.out) == (2, "")
    assert "at keep=0.5: the heads table of embedded has" in done.err
    assert not log.exists()


def test_a_log_of_several_commits_says_so(small, log):
    small()
    commit = json.loads(log.read_text().splitlines()[0])["run"]["commit"]
    log.write_text(log.read_text().replace(commit, "0123abc", 1))
    done = small("row-144")
    assert done.code == 0 and f"wrote this log: 0123abc, {commit}" in done.err


def test_a_log_of_another_version_is_refused(small, log):
    small()
    text = log.read_text().replace('"version": 1', '"version": 2')
    log.write_text(text)
    done = small()
    assert (done.code, done.out) == (2, "") and "a log of version 2" in done.err
    assert log.read_text() == text


def test_a_full_disk_is_said_and_loses_nothing(small, log, monkeypatch):
    def add(self, lines, before=Journal._add):
        if self.records:
            raise FoveateError(f"{self.path}: the disk is full")
        before(self, lines)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "_add", add)
        done = small()
    assert (done.code, done.out) == (1, "") and "the disk is full" in done.err
    assert small().code == 0 and len(read_log(log).records) == 6


def test_ctrl_c_says_how_to_go_on(log, tmp_path):
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from foveate.cli import main; main()"
    )
    words = ["eval", "lookup-144", "--methods", "snapkv", "--number", "500", "--batch", "1"]
    command = [sys.executable, "-c", code, *words, "--device", "cpu", "--out", log]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while not log.exists() or log.read_bytes().count(b"\n") < 4:  # the last may be undone
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
    assert process.returncode == 130
    assert f"stopped; all answers so far are in {log}: give the same command" in said
    assert f"--out {log}" in said and "Traceback" not in said
    assert 2 <= len(read_log(log).records) < 1000

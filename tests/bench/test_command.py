"""`foveate bench`: tests first, then JSON files and charts, or a reason why not."""

import dataclasses
import json
import sys

import pytest

import foveate
from foveate import bench, cli
from foveate.bench import sums
from foveate.cli.bench import _settings

SPREAD = {"median": 2.0, "low": 1.0, "high": 3.0, "count": 2}
CASE = {
    "milliseconds": {},
    "ratios": {f"{name} / {sums.ATTENTION}": SPREAD for name in (sums.SUMS, sums.MATRIX)},
    "extra_bytes": {sums.SUMS: 3 << 20, sums.MATRIX: 5 << 20},
}


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """Run `foveate bench` with numbers from nowhere in place of those of the sums."""

    def measure(setting, tick):
        for _ in range(2 * setting.rounds):
            tick("32 tokens")
        return {f"{tokens} tokens": CASE for tokens in setting.tokens}

    for name in ("sums", "rows"):
        subject = dataclasses.replace(bench.SUBJECTS["sums"], measure=measure)
        monkeypatch.setitem(bench.SUBJECTS, name, subject)
    asked = []

    def run(*words, verify=lambda folder, names: asked.extend(names)):
        monkeypatch.setattr(bench, "verify", verify)
        monkeypatch.setenv("COLUMNS", "200")
        words = ["foveate", "bench", "--out", str(tmp_path / "out"), *words]
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return stop.value.code or 0, capsys.readouterr(), tmp_path / "out"

    run.asked = asked
    return run


def test_command_writes_what_is_needed_to_repeat_it(command):
    code, said, folder = command("sums", "--json", "--tokens", "32,64")
    result = json.loads(said.out)
    assert (code, command.asked, list(result)) == (0, ["sums"], ["sums"])
    assert result["sums"] == json.loads((folder / "sums-cpu.json").read_text())
    assert set(result["sums"]) == {
        "what", "commit", "date", "versions", "machine", "setting", "cases", "goals", "table"
    }  # fmt: skip
    assert result["sums"]["setting"]["seed"] == 20260
    assert result["sums"]["setting"]["tokens"] == [32, 64]
    assert set(result["sums"]["versions"]) == {"python", "foveate", "torch", "transformers"}
    assert (folder / "sums-cpu.svg").exists()


def test_several_subjects_have_a_file_each_after_one_round_of_tests(command):
    code, said, folder = command("sums", "rows", "--clock", "cpu")
    assert (code, command.asked) == (0, ["sums", "rows"])
    assert sorted(path.name for path in folder.iterdir()) == [
        "rows-cpu-time.json", "rows-cpu-time.svg", "sums-cpu-time.json", "sums-cpu-time.svg"
    ]  # fmt: skip
    assert said.out.count("2.00 (1.00 to 3.00)") == 2 * 3 * 2


def test_command_is_silent_when_tests_fail(command):
    def fail(folder, names):
        raise foveate.CacheError("nothing is measured, because the tests fail")

    code, said, folder = command("sums", "--json", verify=fail)
    assert (code, said.out) == (1, "")
    assert "tests fail" in said.err
    assert not list(folder.iterdir())


def test_numbers_are_kept_where_no_chart_can_be_drawn(command, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, said, folder = command("sums")
    assert code == 0 and "foveate[charts]" in said.err
    assert [path.name for path in folder.iterdir()] == ["sums-cpu.json"]


def test_a_chart_is_drawn_again_without_measuring(command):
    _, _, folder = command("sums")
    before = (folder / "sums-cpu.svg").read_text()
    (folder / "sums-cpu.svg").unlink()
    command.asked.clear()
    code, said, _ = command("--chart", str(folder / "sums-cpu.json"))
    assert (code, command.asked) == (0, [])
    assert (folder / "sums-cpu.svg").read_text() == before
    assert "sums-cpu.svg" in said.out


def test_subjects_are_listed(command):
    code, said, _ = command("list")
    assert code == 0
    assert [line.split()[0] for line in said.out.splitlines()] == list(bench.SUBJECTS)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["memory"], "choose one of decode, prefill, peak, sums, rows"),
        (["sums", "--device", "meta"], "'meta' cannot be used here"),
        (["--kv-heads", "3"], "choose one of 1, 2, 4"),
        (["--dtype", "int8"], "bfloat16"),
        (["--clock", "sun"], "wall or cpu"),
        (["--device", "warp"], "--device 'warp'"),
        (["decode", "--keep", "1.5"], "more than everything"),
        (["decode", "--keep", "much"], "numbers such as 0.5,0.1"),
        (["rows", "prefill", "--keep", "0.5,0.1"], "takes one --keep"),
        (["sums", "--tokens", "2k"], "numbers such as 2048,8192"),
        (["sums", "--presets", "h2o"], "no use for --presets, which is for prefill"),
        (["prefill", "--presets", "h3o"], "h2o"),
        (["--chart", "nowhere.json"], "cannot be read"),
    ],
)
def test_bad_settings_are_explained(command, words, says):
    code, said, _ = command(*words)
    assert (code, said.out) == (2, "")
    assert says in " ".join(said.err.split())
    assert not command.asked


def test_a_place_that_cannot_be_written_to_is_refused(command, tmp_path):
    (tmp_path / "file").write_text("")
    code, said, _ = command("sums", "--out", str(tmp_path / "file"))
    assert (code, said.out) == (2, "")
    assert "cannot be written" in said.err


def test_there_is_no_way_around_the_tests(command):
    assert command("sums", "--skip-tests")[0] == 2


def test_every_subject_takes_the_options_that_it_names():
    given = {
        "keep": (0.3,), "kv_heads": 2, "rounds": 2, "dtype": "float16",
        "presets": ("snapkv",), "tokens": (2048,),
    }  # fmt: skip
    common = {"device": "cpu", "seed": 5, "clock": "cpu"}
    settings = _settings(list(bench.SUBJECTS), common, given)
    for name, setting in settings.items():
        assert (setting.seed, setting.clock, setting.dtype) == (5, "cpu", "float16"), name
        assert json.dumps(setting.to_dict())
        assert bench.SUBJECTS[name].ticks(setting) > 0

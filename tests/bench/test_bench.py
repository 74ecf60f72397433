"""The benchmark measures every variant in every round, and nothing at all when tests fail."""

import dataclasses
import json
import sys

import pytest

import foveate
from foveate import bench, cli
from foveate.bench import cases, gate
from foveate.bench.result import table
from foveate.bench.subject import Size, build
from foveate.errors import InputError

SMALL = bench.Setting(
    size=Size(layers=2, hidden=32, heads=4, kv_heads=2, visual=(7, 11), text=5),
    keep=0.25,
    rounds=3,
    steps=2,
)


@pytest.fixture(scope="module")
def measured():
    """Measure once on a very small model, and note what was heard of it."""
    heard = []
    return bench.measure(SMALL, heard.append), heard


def test_every_variant_is_in_every_round(measured):
    found, heard = measured
    assert set(found) == set(bench.CASES)
    assert heard == ["prefill"] * 4 + ["decode"] * 4
    for case, names in (
        ("prefill", {cases.FULL, cases.OURS}),
        ("decode", {cases.FULL, cases.OURS, cases.SHORT}),
    ):
        times = found[case]["milliseconds"]
        assert set(times) == names
        for spread in times.values():
            assert spread["count"] == 3
            assert 0 < spread["low"] <= spread["median"] <= spread["high"]


def test_bytes_and_lengths_are_those_of_the_budget(measured):
    decode = measured[0]["decode"]
    prompt = 77 + 5
    assert decode["bytes_full"] == 2 * 2 * 2 * prompt * 8 * 4  # layers, k and v, heads, tokens, D
    assert decode["kept_length"] == round(0.25 * 77) + 5
    assert decode["bytes_stored"] < decode["bytes_full"]


def test_numbers_are_plain_and_make_a_table(measured):
    found = json.loads(json.dumps(measured[0]))
    rows = table(found, "wall")["rows"]
    assert [row[0] for row in rows] == ["prefill", "decode", "decode", "decode"]
    assert all(len(row) == 4 for row in rows)


def test_image_tokens_are_placeholders_that_the_cache_sees():
    subject = build(SMALL.size, 1, "cpu", cases.torch.float32)
    cache = foveate.CompressedCache(subject.model, foveate.aircache(keep=0.25))
    with cases.torch.no_grad():
        subject.prefill(cache)
    assert cache.report().total_visual == 77
    assert cache.report().total_text == 5


def test_cache_that_is_not_compressed_yet_is_not_timed():
    class Waiting:
        def report(self):
            return type("Report", (), {"bytes_stored": 10, "bytes_full": 10})()

    with pytest.raises(foveate.CacheError, match="nothing is measured"):
        cases._check_is_compressed(Waiting())


def test_turns_put_another_variant_first():
    turns = [cases.turned(["a", "b", "c"], number) for number in range(-1, 3)]
    assert [turn[0] for turn in turns] == ["c", "a", "b", "c"]
    assert all(sorted(turn) == ["a", "b", "c"] for turn in turns)


def test_spread_is_median_and_range():
    spread = bench.Spread.of([3.0, 1.0, 7.0])
    assert (spread.median, spread.low, spread.high, spread.count) == (3.0, 1.0, 7.0, 3)


@pytest.fixture
def checkout(tmp_path):
    """Make a checkout whose tests pass or fail."""

    def write(passes):
        folder = tmp_path / "tests" / "hf"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "test_cache.py").write_text(f"def test_cache():\n    assert {passes}\n")
        return tmp_path

    return write


def test_green_tests_let_measuring_begin(checkout):
    bench.verify(checkout(True))


def test_red_tests_stop_everything(checkout):
    with pytest.raises(foveate.CacheError, match=r"nothing is measured(.|\n)*assert False"):
        bench.verify(checkout(False))


def test_no_tests_at_all_stop_everything(checkout):
    folder = checkout(True)
    (folder / "tests" / "hf" / "test_cache.py").write_text("")
    with pytest.raises(foveate.CacheError, match="nothing is measured"):
        bench.verify(folder)


def test_an_installation_without_tests_cannot_measure(tmp_path, monkeypatch):
    monkeypatch.setattr(gate.foveate, "__file__", str(tmp_path / "a" / "b" / "__init__.py"))
    with pytest.raises(foveate.InputError, match="make bench"):
        bench.root()


@pytest.fixture
def command(monkeypatch, capsys, measured, tmp_path):
    """Run `foveate bench` with the small measurement in place of the large one."""
    small = dataclasses.replace(bench.SUBJECTS["cache"], measure=lambda setting, tick: measured[0])
    monkeypatch.setitem(bench.SUBJECTS, "cache", small)

    def run(*words, verify=lambda folder, what: None):
        monkeypatch.setattr(bench, "verify", verify)
        words = ["foveate", "bench", "--out", str(tmp_path / "cache.json"), *words]
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return stop.value.code or 0, capsys.readouterr(), tmp_path / "cache.json"

    return run


def test_command_writes_what_is_needed_to_repeat_it(command):
    code, said, path = command("--json")
    result = json.loads(said.out)
    assert code == 0
    assert result == json.loads(path.read_text())
    assert set(result) == {
        "commit", "date", "versions", "machine", "setting", "cases", "table"
    }  # fmt: skip
    assert result["setting"]["seed"] == 20260
    assert set(result["versions"]) == {"python", "foveate", "torch", "transformers"}


def test_command_prints_ratios(command):
    _, said, _ = command()
    assert "AirCache / full cache" in said.out
    assert "range over rounds" in said.out


def test_command_is_silent_when_tests_fail(command):
    def fail(folder, what):
        raise foveate.CacheError("nothing is measured, because the tests fail")

    code, said, path = command("--json", verify=fail)
    assert (code, said.out) == (1, "")
    assert "tests fail" in said.err
    assert not path.exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["memory"], "choose one of cache, sums, rows"),
        (["sums", "--device", "meta"], "'meta' cannot be used here"),
        (["--kv-heads", "3"], "1, 2, 4 or 8"),
        (["--dtype", "int8"], "bfloat16"),
        (["--clock", "sun"], "wall or cpu"),
        (["--clock", "cpu", "--device", "meta"], "'meta' cannot be used here"),
        (["--device", "warp"], "--device 'warp'"),
        (["--keep", "1.5"], "more than everything"),
        (["--out", "."], "cannot be written"),
    ],
)
def test_bad_settings_are_explained(command, words, says):
    code, said, _ = command(*words)
    assert (code, said.out) == (2, "")
    assert says in said.err


def test_there_is_no_way_around_the_tests(command):
    assert command("--skip-tests")[0] == 2


def test_processor_time_of_work_on_a_gpu_means_nothing():
    from foveate.cli.bench import _check

    with pytest.raises(InputError, match="cannot time work on cuda"):
        _check("cache", 8, "float32", "cuda", "cpu")

"""Nothing at all is measured when tests fail; the tests that are asked for are there."""

import pytest

import foveate
from foveate import bench
from foveate.bench import gate


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """Make a checkout with one subject, whose tests pass or fail."""
    monkeypatch.setitem(gate.TESTS, "decode", (("tests/hf", "qwen2-vl or cache"),))
    monkeypatch.setitem(gate.TESTS, "peak", (("tests/hf", "memory"),))

    def write(passes):
        folder = tmp_path / "tests" / "hf"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "test_cache.py").write_text(f"def test_cache():\n    assert {passes}\n")
        (folder / "test_memory.py").write_text("def test_memory():\n    pass\n")
        return tmp_path

    return write


def test_green_tests_let_measuring_begin(checkout):
    bench.verify(checkout(True), ["decode", "peak"])


def test_red_tests_stop_everything(checkout):
    with pytest.raises(foveate.CacheError, match=r"nothing is measured(.|\n)*assert False"):
        bench.verify(checkout(False), ["peak", "decode"])


def test_no_tests_at_all_stop_everything(checkout):
    folder = checkout(True)
    (folder / "tests" / "hf" / "test_cache.py").write_text("")
    with pytest.raises(foveate.CacheError, match="nothing is measured"):
        bench.verify(folder, ["decode"])


def test_what_two_subjects_share_is_run_once(monkeypatch, tmp_path):
    commands = []

    def run(command, **more):
        commands.append(command[6:])
        return type("Done", (), {"returncode": 0})()

    monkeypatch.setattr(gate.subprocess, "run", run)
    bench.verify(tmp_path, ["sums", "rows"])
    assert commands == [
        ["column_stats", "tests/kernels"],
        ["qwen2-vl", "tests/hf/test_presets.py"],
    ]


def test_an_installation_without_tests_cannot_measure(tmp_path, monkeypatch):
    monkeypatch.setattr(gate.foveate, "__file__", str(tmp_path / "a" / "b" / "__init__.py"))
    with pytest.raises(foveate.InputError, match="make bench"):
        bench.root()


@pytest.mark.parametrize("subject", bench.SUBJECTS)
def test_the_tests_of_every_subject_are_there(subject):
    assert gate.TESTS[subject]
    for place, _ in gate.TESTS[subject]:
        assert (bench.root() / place).exists()

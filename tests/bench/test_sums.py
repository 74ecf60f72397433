"""The case `sums` times the same sums in every variant, and measures their memory alone."""

import dataclasses
import json
import sys

import pytest
import torch

import foveate
from foveate import bench, cli
from foveate.bench import gate, sums
from foveate.errors import InputError

SMALL = bench.SumsSetting(tokens=(32, 300), heads=4, kv_heads=2, width=8, rounds=2)


@pytest.fixture(scope="module")
def measured():
    """Measure two short prompts, without fresh processes, and note what was heard of it."""
    heard = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sums, "extra_in_fresh_process", lambda *what: 3 << 20)
        return bench.measure_sums(SMALL, heard.append), heard


def test_every_variant_is_in_every_round(measured):
    found, heard = measured
    assert list(found) == ["32 tokens", "300 tokens"]
    assert heard == ["32 tokens"] * 2 + ["300 tokens"] * 2
    for result in found.values():
        assert set(result["milliseconds"]) == {sums.ATTENTION, sums.SUMS, sums.MATRIX}
        assert set(result["extra_bytes"]) == {sums.ATTENTION, sums.SUMS, sums.MATRIX}
        assert all(spread["count"] == 2 for spread in result["ratios"].values())


def test_the_variants_agree():
    work = sums.works(SMALL, 50)
    torch.testing.assert_close(work[sums.SUMS](), work[sums.MATRIX]())
    assert work[sums.SUMS]().shape == (1, 2, 50)
    torch.testing.assert_close(work[sums.SUMS]().sum(), torch.tensor(100.0))


def test_memory_is_that_of_the_work():
    setting = bench.SumsSetting(heads=4, kv_heads=2, width=8)
    whole = sums.extra_in_fresh_process(setting, 2048, sums.MATRIX)
    assert whole > 4 * 2048**2 * 4
    assert sums.extra_in_fresh_process(setting, 2048, sums.SUMS) < whole / 2


def test_memory_that_cannot_be_measured_is_an_error():
    with pytest.raises(foveate.CacheError, match="could not be measured"):
        sums.extra_in_fresh_process(SMALL, 8, "nothing")


def test_table_has_ratios_and_memory(measured):
    found = json.loads(json.dumps(measured[0]))
    table = bench.sums_table(found, "wall")
    assert [len(row) for row in table["rows"]] == [5, 5]
    assert len(table["columns"]) == 5
    assert table["rows"][0][3] == "3 MiB"


def test_command_measures_sums_after_their_tests(monkeypatch, capsys, measured, tmp_path):
    asked = []
    monkeypatch.setattr(bench, "verify", lambda folder, what: asked.append(what))
    subject = dataclasses.replace(bench.SUBJECTS["sums"], measure=lambda setting, tick: measured[0])
    monkeypatch.setitem(bench.SUBJECTS, "sums", subject)
    path = tmp_path / "sums.json"
    monkeypatch.setattr(sys, "argv", ["foveate", "bench", "sums", "--json", "--out", str(path)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert (stop.value.code or 0, asked) == (0, ["sums"])
    result = json.loads(path.read_text())
    assert result == json.loads(capsys.readouterr().out)
    assert result["setting"]["tokens"] == [2048, 4096, 8192]
    assert result["table"]["columns"][0] == "prompt"


def test_sums_are_for_the_processor():
    from foveate.cli.bench import _check

    with pytest.raises(InputError, match="on cpu only"):
        _check("sums", 8, "float32", "cuda", "wall")


def test_tests_of_the_sums_are_there():
    folders, matching = gate.TESTS["sums"]
    root = bench.root()
    assert [path for name in folders for path in (root / name).glob(f"test_{matching}*.py")]

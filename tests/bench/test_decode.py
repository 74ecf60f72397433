"""The subject `decode`: every storage in every round, beside a native cache of as many bytes."""

import json
import subprocess
import sys

import pytest
import torch

import foveate
from foveate import bench
from foveate.bench import compiled, decode
from foveate.bench.model import Size, build
from foveate.errors import InputError, MethodError

SUBJECT = bench.SUBJECTS["decode"]
SIZE = Size(layers=2, hidden=64, heads=4, kv_heads=2, visual=(15, 20), text=5)
SMALL = decode.DecodeSetting(SIZE, shares=(0.25, 0.1), rounds=3, steps=2, backend="eager")
STEPS, GENERATE = ("25 %", "10 %"), "25 %, generate"


@pytest.fixture(scope="module")
def heard():
    return []


def alone(prompted, method, setting, tick):
    """Measure `generate` in a process without checks of shapes, which cannot be compiled."""
    code = (
        "import json, torch; from foveate.bench import compiled, decode; "
        "from foveate.bench.model import Size, build; "
        f"setting = decode.{setting!r}; model = build(setting.size, 1, 'cpu', torch.float32); "
        f"method = decode.chosen(decode.EVEN, {method.budget.keep}); "
        "found = compiled.measure_generate(model, method, setting, lambda: print('tick')); "
        "print(json.dumps(found))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *ticks, found = done.stdout.splitlines()
    for _ in range(ticks.count("tick")):
        tick()
    return json.loads(found)


@pytest.fixture(scope="module")
def result(heard):
    """Measure once on a very small model, and note what was heard of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decode, "measure_generate", alone)
        found = json.loads(json.dumps(SUBJECT.measure(SMALL, heard.append)))
    return {"what": "decode", "setting": SMALL.to_dict(), "cases": found}


def test_every_variant_is_in_every_round(result, heard):
    assert heard == ["25 % kept"] * 4 + ["10 % kept"] * 4 + [GENERATE] * 4
    assert len(heard) == SUBJECT.ticks(SMALL)
    names = {decode.FULL, decode.NATIVE, *decode.variants()}
    assert list(result["cases"]) == [*STEPS, GENERATE]
    for numbers in (result["cases"][case] for case in STEPS):
        assert set(numbers["milliseconds"]) == names
        for spread in numbers["milliseconds"].values():
            assert spread["count"] == 3
            assert 0 < spread["low"] <= spread["median"] <= spread["high"]


def test_every_storage_that_a_cache_accepts_is_measured():
    storages = {storage for _, storage in decode.OURS.values()}
    assert {"dense"} <= storages
    assert set(decode.STORAGES) - {"auto"} == storages & set(decode.STORAGES)


def test_all_stand_beside_as_many_bytes(result):
    numbers = result["cases"]["25 %"]
    token = 2 * 2 * 2 * 16 * 4  # layers, k and v, heads, D
    assert numbers["bytes_stored"][decode.FULL] == token * 305
    assert numbers["kept"][decode.NATIVE] == 75 + 5
    assert numbers["bytes_stored"][decode.NATIVE] == token * 80
    for name in decode.variants():
        assert numbers["kept"][name] == pytest.approx(80, abs=1)


def test_heads_of_the_ragged_cache_are_of_unequal_length(result):
    for numbers in (result["cases"][case] for case in STEPS):
        longest, mean = numbers["longest"][decode.PADDED], numbers["kept"][decode.PADDED]
        assert longest > 1.2 * mean
        if decode.RAGGED in numbers["bytes_stored"]:
            padded = numbers["bytes_stored"][decode.PADDED]
            assert numbers["bytes_stored"][decode.RAGGED] < 0.9 * padded


def test_table_has_a_row_per_share_and_variant(result):
    table = SUBJECT.table(result)
    names = [decode.NATIVE, *decode.variants()]
    assert [row[:2] for row in table["rows"]] == [
        *([case, name] for case in STEPS for name in names),
        *([GENERATE, name] for name in result["cases"][GENERATE]["kept"] if name != decode.FULL),
    ]
    assert all(len(row) == len(table["columns"]) for row in table["rows"])


def test_goals_say_met_or_missed(result):
    for limits, says in ((dict.fromkeys(decode.LIMITS, 1e9), "met"), ({}, "")):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(decode, "LIMITS", limits)
            rows = SUBJECT.table(result)["rows"]
        assert rows[1][1] == decode.DENSE
        assert rows[1][-1].endswith(says) and bool(rows[1][-1]) == bool(says)
    for numbers in (result["cases"][case] for case in STEPS):
        numbers["ratios"][f"{decode.DENSE} / {decode.NATIVE}"]["median"] = 7.0
    missed = [goal for goal in SUBJECT.goals(result) if not goal.met]
    assert {goal.value for goal in missed} >= {7.0}
    assert "missed" in SUBJECT.table(result)["rows"][1][-1]


def test_chart_has_a_line_per_variant(result):
    (panel,) = SUBJECT.chart(result).panels
    assert [line.name for line in panel.lines] == [decode.NATIVE, *decode.variants()]
    assert all(len(line.x) == 2 and line.x[0] < line.x[1] for line in panel.lines)


def test_generate_compiles_one_graph_without_breaks(result):
    numbers = result["cases"][GENERATE]
    chosen = compiled.variants("cpu")
    assert set(numbers["milliseconds"]) == set(numbers["kept"]) == set(chosen)
    assert set(numbers["graphs"]) == {name for name, graph in chosen.items() if graph}
    assert numbers["graphs"][compiled.STATIC_COMPILED] == {"graphs": 1, "breaks": 0}
    assert numbers["kept"][compiled.FULL] == 305
    assert numbers["kept"][compiled.STATIC_COMPILED] == numbers["kept"][compiled.DENSE] == 80


def test_without_a_compiler_nothing_is_compiled(monkeypatch):
    monkeypatch.setattr(compiled.shutil, "which", lambda name: None)
    assert not any(compiled.variants("cpu").values())
    assert compiled.variants("cuda")[compiled.STATIC_COMPILED]


def test_image_tokens_are_placeholders_that_the_cache_sees():
    prompted = build(SIZE, 1, "cpu", torch.float32)
    cache = foveate.CompressedCache(prompted.model, foveate.aircache(keep=0.25))
    with torch.no_grad():
        prompted.prefill(cache)
    assert cache.report().total_visual == 300
    assert cache.report().total_text == 5


def test_cache_that_is_not_compressed_is_not_timed():
    report = type("Report", (), {"bytes_stored": 10, "bytes_full": 10})()
    with pytest.raises(foveate.CacheError, match="nothing is measured"):
        decode._check_is_compressed(report)


def test_settings_that_cannot_be_measured_are_refused():
    with pytest.raises(InputError, match="1, 2, 4, 8"):
        SUBJECT.setting(kv_heads=3)
    with pytest.raises(MethodError, match="more than everything"):
        SUBJECT.setting(keep=(0.5, 1.5))
    assert SUBJECT.setting(device="cuda").dtype == "bfloat16"
    assert SUBJECT.setting(kv_heads=2, keep=(0.3,)).shares == (0.3,)

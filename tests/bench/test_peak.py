"""The subject `peak`: bytes after every layer, and the same tokens in one pass and in two."""

import json

import pytest
import torch

import foveate
from foveate import bench
from foveate.bench import peak
from foveate.bench.model import Size, build
from foveate.errors import MethodError

SUBJECT = bench.SUBJECTS["peak"]
SIZE = Size(layers=4, hidden=32, heads=4, kv_heads=2, visual=(12, 12), text=6)
SMALL = peak.PeakSetting(SIZE, ("aircache", "snapkv"), keep=0.25)
TOKEN = 2 * 2 * 8 * 4  # k and v, heads, D


@pytest.fixture(scope="module")
def heard():
    return []


@pytest.fixture(scope="module")
def result(heard):
    """Measure once on a very small model, in this process, and note what was heard of it."""

    def here(name, words):
        with torch.no_grad():
            return peak.run(json.loads(json.dumps(words)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(peak, "in_fresh_process", here)
        found = json.loads(json.dumps(SUBJECT.measure(SMALL, heard.append)))
    return {"what": "peak", "setting": SMALL.to_dict(), "cases": found}


def test_every_variant_has_a_point_per_layer(result, heard):
    assert len(heard) == SUBJECT.ticks(SMALL) == 5
    for numbers in result["cases"].values():
        assert set(numbers["curve"]) == set(numbers["process"]) == {peak.FULL, peak.TWO, peak.OURS}
        assert all(len(curve) == 4 for curve in numbers["curve"].values())


def test_full_and_two_pass_hold_every_layer(result):
    for numbers in result["cases"].values():
        assert numbers["curve"][peak.FULL] == [TOKEN * 150 * n for n in (1, 2, 3, 4)]
        assert numbers["curve"][peak.TWO] == numbers["curve"][peak.FULL]
        assert numbers["layer"] == TOKEN * 150


def test_ours_holds_less_on_the_way_and_no_less_at_the_end(result):
    for numbers in result["cases"].values():
        assert max(numbers["curve"][peak.OURS]) < max(numbers["curve"][peak.TWO])
        assert numbers["most"][peak.OURS] < numbers["most"][peak.TWO]
        for variant, curve in numbers["curve"].items():
            assert numbers["final"] <= max(curve) <= numbers["most"][variant]


def test_other_tokens_than_in_two_passes_are_an_error(monkeypatch):
    told = {"curve": [9], "final": 3, "process": 5, "most": 9}

    def here(name, words):
        return {**told, "kept": words["variant"]}

    monkeypatch.setattr(peak, "in_fresh_process", here)
    with pytest.raises(foveate.CacheError, match="aircache keeps other tokens"):
        SUBJECT.measure(SMALL, lambda name: None)


def test_height_over_final_size_and_one_layer():
    numbers = {"most": {peak.OURS: 25}, "layer": 10, "final": 10}
    assert peak.over(numbers, peak.OURS) == 0.5


def test_table_and_chart_show_every_preset(result):
    table = SUBJECT.table(result)
    assert [row[:2] for row in table["rows"]] == [
        [name, variant] for name in ("aircache", "snapkv") for variant in (peak.TWO, peak.OURS)
    ]
    assert all(len(row) == len(table["columns"]) for row in table["rows"])
    assert [panel.title for panel in SUBJECT.chart(result).panels] == ["aircache", "snapkv"]
    assert len(SUBJECT.goals(result)) == 2


def test_hooks_go_when_the_prefill_fails():
    prompted = build(SIZE, 1, "cpu", torch.float32)
    with pytest.raises(RuntimeError), peak.noted(prompted, prompted.native_cache(), []):
        raise RuntimeError
    assert not any(layer._forward_hooks for layer in prompted.layers)


def test_unknown_presets_are_refused():
    with pytest.raises(MethodError, match="snapkv"):
        SUBJECT.setting(presets=("snapvk",))

"""The subject `prefill`: every preset between two prefills of the full cache."""

import json

import pytest
import torch

import foveate
from foveate import bench
from foveate.bench import prefill
from foveate.bench.model import Size, build
from foveate.errors import InputError

SUBJECT = bench.SUBJECTS["prefill"]
SIZE = Size(layers=2, hidden=32, heads=4, kv_heads=2, text=5)
CHOSEN = ("aircache", "h2o", "knorm")
SMALL = prefill.PrefillSetting(SIZE, (60, 90), CHOSEN, keep=0.3, rounds=2)


@pytest.fixture(scope="module")
def heard():
    return []


@pytest.fixture(scope="module")
def result(heard):
    """Measure once on a very small model, and note what was heard of it."""
    found = json.loads(json.dumps(SUBJECT.measure(SMALL, heard.append)))
    return {"what": "prefill", "setting": SMALL.to_dict(), "cases": found}


def test_every_preset_is_in_every_round(result, heard):
    assert heard == ["60 tokens"] * 6 + ["90 tokens"] * 6
    assert len(heard) == SUBJECT.ticks(SMALL)
    for found in result["cases"].values():
        assert tuple(found["presets"]) == CHOSEN
        assert 0 < found["attention"]["median"] and 0 < found["full"]["median"]
        for numbers in found["presets"].values():
            assert all(numbers[key]["count"] == 2 for key in ("over_full", "own", "milliseconds"))
            assert 0 < numbers["own"]["low"]


def test_scores_are_told_apart_by_the_rows_they_read(result):
    for found in result["cases"].values():
        reads = {name: numbers["reads"] for name, numbers in found["presets"].items()}
        assert reads == {"aircache": prefill.WINDOW, "h2o": prefill.ALL, "knorm": prefill.NONE}


def test_overheads_are_those_over_the_neighbours():
    part = prefill.Taken([11.0, 30.0, 12.0], [10.0, 20.0, 10.0], [0.5, 2.0, 1.0])
    found = prefill._overheads(part, 4.0)
    assert found["over_full"]["median"] == pytest.approx(0.2)
    assert found["over_attention"]["median"] == pytest.approx(0.5)
    assert found["own"]["median"] == pytest.approx(0.1)


def test_every_preset_can_be_measured():
    setting = SUBJECT.setting()
    assert set(setting.presets) == {info.name for info in foveate.methods()} - {"full"}
    assert [setting.at(tokens).tokens for tokens in (100, 2048, 8192)] == [100, 2048, 8192]


def test_limits_are_of_prefill_or_of_attention(result):
    rows = {row[0]: row for row in SUBJECT.table(result)["rows"]}
    assert list(rows) == ["aircache", "h2o", "knorm"]  # some rows, all rows, no rows
    assert rows["aircache"][-1].startswith("<= 2% of prefill: ")
    assert rows["h2o"][-1].startswith("<= 60% of attention: ")
    assert "of attention" in rows["h2o"][2] and "of attention" not in rows["aircache"][2]
    assert rows["knorm"][-1] == ""
    assert [goal.limit for goal in SUBJECT.goals(result)] == [0.02, 0.6, 0.02, 0.6]


def test_a_goal_is_met_at_all_lengths_or_missed_at_some(result):
    values = iter([0.01, 0.05])
    for found in result["cases"].values():
        found["presets"]["aircache"]["over_full"]["median"] = next(values)
    assert SUBJECT.table(result)["rows"][0][-1] == "<= 2% of prefill: missed at 1"


def test_chart_tells_prefill_and_attention_apart(result):
    left, right = SUBJECT.chart(result).panels
    assert left.names == ("aircache", "knorm") and right.names == ("h2o",)
    assert [line.name for line in left.lines] == ["60 tokens", "90 tokens"]
    assert (left.rules, right.rules) == ({"2%": 2.0}, {"60%": 60.0})


def test_attention_is_timed_in_every_layer_and_the_model_is_as_before():
    prompted = build(SIZE, 1, "cpu", torch.float32)
    text = prompted.model.config.get_text_config(decoder=True)
    before, reads = text._attn_implementation, []

    def clock():
        reads.append(len(reads))
        return float(len(reads))

    with torch.no_grad():
        assert prompted.attention_seconds(clock) == 2.0  # one tick per layer
    assert len(reads) == 4 and text._attn_implementation == before


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"presets": ("snapvk",)}, "snapkv"),
        ({"tokens": (20,)}, "too short"),
        ({"kv_heads": 3}, "choose one of 1, 2, 4"),
        ({"dtype": "int8"}, "bfloat16"),
    ],
)
def test_settings_that_cannot_be_measured_are_refused(options, says):
    with pytest.raises(InputError, match=says):
        SUBJECT.setting(**options)

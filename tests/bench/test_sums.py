"""The case `sums` times the same sums in every variant, and measures their memory alone."""

import json

import pytest
import torch

from foveate import bench
from foveate.bench import sums

SUBJECT = bench.SUBJECTS["sums"]
SMALL = sums.SumsSetting(tokens=(32, 300), heads=4, kv_heads=2, width=8, rounds=2)


@pytest.fixture(scope="module")
def measured():
    """Measure two short prompts, without fresh processes, and note what was heard of it."""
    heard = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sums, "in_fresh_process", lambda *what: 3 << 20)
        return SUBJECT.measure(SMALL, heard.append), heard


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
    setting = sums.SumsSetting(heads=4, kv_heads=2, width=8)
    whole = sums.extra(setting, 2048, sums.MATRIX)
    assert whole > 4 * 2048**2 * 4
    assert sums.extra(setting, 2048, sums.SUMS) < whole / 2


def test_table_and_chart_have_ratios_and_memory(measured):
    result = {"setting": SMALL.to_dict(), "cases": json.loads(json.dumps(measured[0]))}
    table = SUBJECT.table(result)
    assert [len(row) for row in table["rows"]] == [5, 5]
    assert len(table["columns"]) == 5
    assert table["rows"][0][3] == "3 MiB"
    time, memory = SUBJECT.chart(result).panels
    assert [line.x for line in time.lines] == [(32, 300)] * 2
    assert [line.y for line in memory.lines] == [(3, 3)] * 2


def test_a_device_has_its_own_lengths():
    assert SUBJECT.setting().tokens == (2048, 4096, 8192)
    there = SUBJECT.setting(device="cuda")
    assert (max(there.tokens), there.dtype) == (32768, "bfloat16")

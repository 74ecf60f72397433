"""The case `rows`: every variant in a process of its own, and ours keeps what eager keeps."""

import pytest
import torch

from foveate import bench
from foveate.bench import rows
from foveate.bench.subject import Size, build
from foveate.errors import CacheError

SMALL = bench.RowsSetting(Size(2, 32, 4, 2, (6, 5), 9), rounds=1)


@pytest.fixture(scope="module")
def measured():
    heard = []
    return bench.measure_rows(SMALL, heard.append), heard


def test_every_variant_is_measured(measured):
    found, heard = measured
    assert heard == list(rows.VARIANTS)
    (result,) = found.values()
    assert set(result["milliseconds"]) == set(result["extra_bytes"]) == set(rows.VARIANTS)
    assert result["kept_alike"] == 1.0


def test_table_has_a_row_for_each_variant(measured):
    table = bench.rows_table(measured[0], "wall")
    assert [row[1] for row in table["rows"]] == list(rows.VARIANTS)
    assert all(len(row) == len(table["columns"]) for row in table["rows"])
    assert table["rows"][0][2] == "1.00"


def test_cutting_keeps_the_newest_and_the_highest():
    subject = build(SMALL.size, 1, "cpu", torch.float32)
    with torch.no_grad():
        kept = rows.eager(subject, 0.5)
    T = SMALL.size.tokens
    assert len(kept) == 2 and sum(int(x.sum()) for x in kept) == round(0.5 * T * 2) * 2
    assert all(bool(x[:, T - int(0.25 * T) :].all()) for x in kept)


def test_a_variant_that_fails_says_why(monkeypatch):
    monkeypatch.setattr(rows, "VARIANTS", ("nothing",))
    with pytest.raises(CacheError, match="nothing could not be measured"):
        bench.measure_rows(SMALL, lambda variant: None)

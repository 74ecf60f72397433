"""The case `rows`: every variant in a process of its own, and ours keeps what eager keeps."""

import json

import pytest
import torch

from foveate import bench
from foveate.bench import rows
from foveate.bench.model import Size, build

SUBJECT = bench.SUBJECTS["rows"]
SMALL = rows.RowsSetting(Size(2, 32, 4, 2, (6, 5), 9), rounds=1)


@pytest.fixture(scope="module")
def measured():
    """Measure in this process, and note what was heard of it."""
    heard = []

    def here(name, words):
        with torch.no_grad():
            return rows.run(json.loads(json.dumps(words)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "in_fresh_process", here)
        return SUBJECT.measure(SMALL, heard.append), heard


def test_every_variant_is_measured(measured):
    found, heard = measured
    assert heard == list(rows.VARIANTS)
    (result,) = found.values()
    assert set(result["milliseconds"]) == set(result["extra_bytes"]) == set(rows.VARIANTS)
    assert result["kept_alike"] == 1.0


def test_table_has_a_row_for_each_variant(measured):
    result = {"setting": SMALL.to_dict(), "cases": json.loads(json.dumps(measured[0]))}
    table = SUBJECT.table(result)
    assert [row[1] for row in table["rows"]] == list(rows.VARIANTS)
    assert all(len(row) == len(table["columns"]) for row in table["rows"])
    assert table["rows"][0][2] == "1.00"
    for panel in SUBJECT.chart(result).panels:
        assert panel.names == rows.VARIANTS and len(panel.lines[0].x) == 4


def test_cutting_keeps_the_newest_and_the_highest():
    subject = build(SMALL.size, 1, "cpu", torch.float32)
    with torch.no_grad():
        kept = rows.eager(subject, 0.5)
    T = SMALL.size.tokens
    assert len(kept) == 2 and sum(int(x.sum()) for x in kept) == round(0.5 * T * 2) * 2
    assert all(bool(x[:, T - int(0.25 * T) :].all()) for x in kept)

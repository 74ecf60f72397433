"""`column_stats` in blocks equals its plain-loop twin."""

import inspect
import math

import pytest
import torch

from foveate.errors import InputError
from foveate.kernels.column_stats import column_stats, naive, row_blocks, walk

TOLERANCE = {torch.float32: 1e-5, torch.float16: 1e-5, torch.bfloat16: 1e-5}


def problem(B=2, Hq=6, H=2, R=5, L=23, D=7, dtype=torch.float32):
    queries = (torch.randn(B, Hq, R, D) * 2).to(dtype)
    keys = torch.randn(B, H, L, D).to(dtype)
    rows = torch.arange(L - R, L).clamp(min=0).expand(B, R).clone()
    rows[0, :1] = -1
    return queries, keys, rows


def compare(queries, keys, **options):
    options = {"scaling": 0.3, **options}
    found = column_stats(queries, keys, **options)
    expected = naive.column_stats(queries, keys, **options)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=TOLERANCE[keys.dtype])
    return found


def test_twins_have_the_same_signature():
    assert inspect.signature(column_stats) == inspect.signature(naive.column_stats)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("power", [1, 2, math.inf])
@pytest.mark.parametrize("heads", [(6, 2), (3, 3), (5, 1)], ids=str)
def test_types_powers_and_groups(dtype, power, heads):
    Hq, H = heads
    queries, keys, rows = problem(Hq=Hq, H=H, dtype=dtype)
    compare(queries, keys, rows=rows, power=power)


@pytest.mark.parametrize("length", [0, 1, 2, 63, 157])
@pytest.mark.parametrize("count", [0, 1, 13])
def test_odd_sizes(length, count):
    queries, keys, rows = problem(B=1, R=count, L=length, D=3)
    compare(queries, keys, rows=rows, scaling=0.7)


def test_columns_positions_weights_and_given_norm():
    queries, keys, rows = problem()
    B, Hq, R, _ = queries.shape
    H, L = keys.shape[1:3]
    columns = torch.rand(B, L) < 0.6
    by_head = torch.rand(B, Hq, L) < 0.6
    positions = torch.rand(B, H, L).argsort(-1)
    positions[torch.rand(B, H, L) < 0.2] = -1
    weights = torch.rand(B, R) * (torch.rand(B, R) < 0.7)
    head_weights = torch.rand(B, Hq, R) * (torch.rand(B, Hq, R) < 0.7)
    lse = torch.randn(B, Hq, R) + 4
    compare(queries, keys, rows=rows, columns=columns, weights=weights)
    compare(queries, keys, rows=rows, columns=by_head, weights=head_weights)
    compare(queries, keys, rows=rows, columns=columns, positions=positions, weights=head_weights)
    compare(queries, keys, rows=rows, positions=positions[:, 0], power=2, weights=weights)
    compare(queries, keys, rows=rows, lse=lse, weights=weights)
    compare(queries, keys, rows=rows, lse=lse, power=math.inf, columns=by_head)


@pytest.mark.parametrize("power", [1, 2, math.inf])
@pytest.mark.parametrize("heads", [(6, 2), (3, 3), (5, 1)], ids=str)
def test_mean_over_a_group_comes_first(power, heads):
    Hq, H = heads
    queries, keys, rows = problem(Hq=Hq, H=H, R=7)
    weights = torch.rand(2, H, 7) * (torch.rand(2, H, 7) < 0.7)
    columns = torch.rand(2, Hq, 23) < 0.6
    compare(queries, keys, rows=rows, power=power, group=True)
    compare(queries, keys, rows=rows, power=power, group=True, weights=weights, columns=columns)


def test_row_blocks_are_the_softmax(monkeypatch):
    queries, keys, rows = problem(R=9)
    columns = torch.rand(2, 23) < 0.6
    monkeypatch.setattr(walk, "BLOCK_ELEMENTS", 2 * 6 * 23 * 4)
    parts = list(row_blocks(queries, keys, scaling=0.3, rows=rows, columns=columns))
    assert [part.stop - part.start for part, _ in parts] == [4, 4, 1]
    keys = keys.repeat_interleave(3, 1)
    logits = queries.double() @ keys.double().mT * 0.3
    seen = columns[:, None, None] & (torch.arange(23) <= rows[:, None, :, None])
    expected = logits.masked_fill(~seen, -torch.inf).softmax(-1).nan_to_num(0)
    found = torch.cat([p for _, p in parts], 2)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-6)


def test_in_many_blocks_and_tiles(monkeypatch):
    queries, keys, rows = problem(R=11, L=61)
    whole = column_stats(queries, keys, scaling=0.3, rows=rows)
    monkeypatch.setattr(walk, "BLOCK_ELEMENTS", 2 * 6 * 61 * 3)
    monkeypatch.setattr(walk, "TILE_ELEMENTS", 2 * 2 * 7 * 5)
    torch.testing.assert_close(column_stats(queries, keys, scaling=0.3, rows=rows), whole)
    keys = keys.half()
    compare(queries.half(), keys, rows=rows)


def test_what_is_masked_never_leaks():
    queries, keys, rows = problem()
    columns = torch.ones(2, 23, dtype=torch.bool)
    columns[0, 4:9] = False
    weights = torch.ones(2, 5)
    weights[1, 2] = 0
    clean = column_stats(queries, keys, scaling=0.3, rows=rows, columns=columns, weights=weights)
    keys[0, :, 4:9] = torch.nan
    keys[1, :, 22] = torch.inf  # the last key is seen by the last row alone
    queries[0, :, 0] = torch.nan
    queries[1, :, 2] = torch.nan
    weights[1, 4] = 0
    poisoned = column_stats(queries, keys, scaling=0.3, rows=rows, columns=columns, weights=weights)
    torch.testing.assert_close(poisoned[0], clean[0])
    assert poisoned[1].isfinite().all()


def test_a_row_that_sees_nothing_counts_nothing():
    queries, keys, rows = problem()
    nothing = torch.zeros(2, 23, dtype=torch.bool)
    assert not column_stats(queries, keys, scaling=1.0, rows=rows, columns=nothing).any()


def test_rows_sum_to_their_weights():
    queries, keys, rows = problem()
    weights = torch.rand(2, 5)
    sums = column_stats(queries, keys, scaling=0.3, rows=rows, weights=weights).sum(-1)
    expected = (weights * (rows >= 0)).sum(-1, keepdim=True).expand(2, 6)
    torch.testing.assert_close(sums, expected)


def test_huge_logits_do_not_overflow():
    queries, keys, rows = problem()
    found = column_stats(queries * 1e4, keys, scaling=1.0, rows=rows)
    assert found.isfinite().all()


def test_unknown_power_is_refused():
    queries, keys, rows = problem()
    for twin in (column_stats, naive.column_stats):
        with pytest.raises(InputError, match="give 1, 2 or"):
            twin(queries, keys, scaling=1.0, rows=rows, power=3)

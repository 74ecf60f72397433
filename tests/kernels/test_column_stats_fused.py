"""`column_stats` in Triton equals its plain-loop twin: interpreted, and on a GPU."""

import inspect
import math
from importlib import import_module

import pytest
import torch

from foveate.errors import InputError
from foveate.kernels.column_stats import column_stats, naive
from foveate.kernels.dispatch import in_triton

pytest.importorskip("triton")
fused = import_module("foveate.kernels.column_stats.fused")

pytestmark = pytest.mark.usefixtures("memory_is_poisoned")
DTYPES = [torch.float32, torch.bfloat16, torch.float16]  # products are exact, sums in float32


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    monkeypatch.setattr(fused, "MOST_ROWS", 16)


def around(*shape, dtype, device):
    """Return random numbers with NaN all around them, in memory and in every row."""
    held = torch.full((*shape[:-2], shape[-2] + 5, shape[-1] + 3), torch.nan, dtype=dtype)
    part = held.to(device)[..., 2 : 2 + shape[-2], 1 : 1 + shape[-1]]
    return part.copy_(torch.randn(shape))


def problem(device, B=2, Hq=6, H=2, R=5, L=23, D=7, dtype=torch.float32):
    queries = around(B, Hq, R, D, dtype=dtype, device=device) * 2
    keys = around(B, H, L, D, dtype=dtype, device=device)
    rows = torch.arange(L - R, L).clamp(min=0).expand(B, R).clone()
    rows[0, :1] = -1
    return queries, keys, rows.to(device)


def compare(queries, keys, **options):
    options = {"scaling": 0.3, **options}
    found = fused.column_stats(queries, keys, **options)
    options = {name: x.cpu() if torch.is_tensor(x) else x for name, x in options.items()}
    expected = naive.column_stats(queries.cpu(), keys.cpu(), **options)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-4, atol=1e-5)
    return found


def test_twins_have_the_same_signature():
    assert inspect.signature(fused.column_stats) == inspect.signature(naive.column_stats)
    assert in_triton("column_stats") is fused.column_stats


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("power", [1, 2, math.inf])
@pytest.mark.parametrize("heads", [(6, 2), (3, 3), (5, 1)], ids=str)
def test_types_powers_and_groups(dtype, power, heads, device):
    Hq, H = heads
    queries, keys, rows = problem(device, Hq=Hq, H=H, dtype=dtype)
    weights = torch.rand(2, Hq, 5, device=device) * (torch.rand(2, Hq, 5, device=device) < 0.7)
    compare(queries, keys, rows=rows, power=power, weights=weights)
    columns = torch.rand(2, Hq, 23, device=device) < 0.6
    weights = weights[:, :H]
    compare(queries, keys, rows=rows, power=power, group=True, weights=weights, columns=columns)


@pytest.mark.parametrize(
    ("R", "L", "D"), [(0, 5, 3), (1, 1, 3), (5, 0, 3), (13, 63, 17), (37, 41, 80)]
)
def test_odd_sizes(R, L, D, device):
    queries, keys, rows = problem(device, B=1, Hq=2, H=1, R=R, L=L, D=D)
    compare(queries, keys, rows=rows)


def test_columns_positions_weights_and_given_norm(device):
    queries, keys, rows = problem(device, R=18)
    (B, Hq, R, _), (H, L) = queries.shape, keys.shape[1:3]
    by_head = torch.rand(B, Hq, L, device=device) < 0.6
    columns = torch.rand(B, L + 2, 2, device=device)[:, 1:-1, 1] < 0.6
    positions = torch.rand(B, H, L, device=device).argsort(-1)
    positions[torch.rand(B, H, L, device=device) < 0.2] = -1
    weights = torch.rand(B, R, device=device) * (torch.rand(B, R, device=device) < 0.7)
    lse = torch.randn(B, Hq, R, device=device) + 6
    compare(queries, keys, rows=rows, columns=columns, weights=weights)
    compare(queries, keys, rows=rows, columns=columns, positions=positions)
    compare(queries, keys, rows=rows, positions=positions[:, 0], power=2, weights=weights)
    compare(queries, keys, rows=rows.flip(-1), lse=lse, weights=weights)
    compare(queries, keys, rows=rows, lse=lse, power=math.inf, columns=by_head)
    compare(queries, keys, rows=rows[:1].expand(B, -1), positions=positions, group=True)


def test_norms_are_found_in_parts(device, monkeypatch):
    monkeypatch.setattr(fused, "PROGRAMS", 100)
    queries, keys, rows = problem(device, B=1, R=3, L=75)
    compare(queries, keys, rows=rows - 30)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # of numpy, which interprets
def test_what_is_masked_never_leaks(device):
    queries, keys, rows = problem(device)
    columns = torch.ones(2, 23, dtype=torch.bool, device=device)
    columns[0, 4:9] = False
    weights = torch.ones(2, 5, device=device)
    weights[1, 2] = weights[1, 4] = 0
    options = {"scaling": 0.3, "rows": rows, "columns": columns, "weights": weights}
    clean = fused.column_stats(queries, keys, **options)
    keys[0, :, 4:9] = torch.nan
    keys[1, :, 22] = torch.inf  # the last key is seen by the last row alone
    queries[0, :, 0] = queries[1, :, 2] = queries[1, :, 4] = torch.nan
    assert torch.equal(fused.column_stats(queries, keys, **options), clean)


def test_a_row_that_sees_nothing_counts_nothing(device):
    queries, keys, rows = problem(device)
    nothing = torch.zeros(2, 23, dtype=torch.bool, device=device)
    assert not fused.column_stats(queries, keys, scaling=1.0, rows=rows, columns=nothing).any()
    assert not fused.column_stats(queries, keys, scaling=1.0, rows=rows - 99).any()


def test_huge_logits_do_not_overflow(device):
    queries, keys, rows = problem(device)
    found = fused.column_stats(queries * 1e4, keys, scaling=1.0, rows=rows)
    sums = (rows >= 0).sum(-1, keepdim=True).expand(2, 6).float()
    torch.testing.assert_close(found.sum(-1), sums)


@pytest.mark.gpu
def test_a_gpu_uses_it(gpu, monkeypatch):
    queries, keys, rows = problem(gpu)
    monkeypatch.setattr("foveate.kernels.column_stats.blocked.column_stats", None)
    found = column_stats(queries, keys, scaling=0.3, rows=rows)
    assert torch.equal(found, fused.column_stats(queries, keys, scaling=0.3, rows=rows))


def test_unknown_power_is_refused(device):
    queries, keys, rows = problem(device)
    with pytest.raises(InputError, match="give 1, 2 or"):
        fused.column_stats(queries, keys, scaling=1.0, rows=rows, power=3)

"""`ragged_attention` in Triton equals its plain-loop twin: interpreted, and on a GPU."""

import inspect
from contextlib import contextmanager
from importlib import import_module

import pytest
import torch

from foveate.kernels.dispatch import in_triton
from foveate.kernels.ragged_attention import naive, ragged_attention

pytest.importorskip("triton")
fused = import_module("foveate.kernels.ragged_attention.fused")

pytestmark = pytest.mark.usefixtures("memory_is_poisoned")
TOLERANCE = {  # weights are rounded to the dtype of the values before they are summed
    torch.float32: {"rtol": 1e-5, "atol": 1e-5},
    torch.bfloat16: {"rtol": 2**-6, "atol": 2**-6},
    torch.float16: {"rtol": 2**-9, "atol": 2**-9},
}


@pytest.fixture(autouse=True)
def many_units(monkeypatch):
    monkeypatch.setattr(fused, "LEAST_TOKENS", 16)
    monkeypatch.setattr(fused, "WAVES", 1000)


def around(*shape, dtype, device):
    """Return random numbers with NaN all around them, in memory and in every row."""
    held = torch.full((*shape[:-2], shape[-2] + 5, shape[-1] + 3), torch.nan, dtype=dtype)
    held = held.to(device)
    part = held[..., 2 : 2 + shape[-2], 1 : 1 + shape[-1]]
    return part.copy_(torch.randn(shape))


def problem(lengths, device, B=2, G=3, q=1, D=20, Dv=12, t=5, dtype=torch.float32):
    H, S = len(lengths) // B, sum(lengths)
    kind = {"dtype": dtype, "device": device}
    return (
        around(B, H * G, q, D, **kind) * 2,
        around(S, D, **kind),
        around(S, Dv, **kind),
        torch.tensor([0, *lengths]).cumsum(0).to(device),
        around(B, H, t, D, **kind),
        around(B, H, t, Dv, **kind),
    )


def biases(inputs, heads=1):
    """Return biases that hide a part; one row of the batch and the last query see no tail."""
    (B, _, q, _), S, t = inputs[0].shape, len(inputs[1]), inputs[4].shape[2]
    dtype, device = inputs[0].dtype, inputs[0].device
    least = torch.finfo(dtype).min
    prefix, tail = torch.randn(q, S), torch.randn(B, heads, q, t)
    prefix = prefix.masked_fill(torch.rand(q, S) < 0.3, least)
    prefix[-1, : S // 2], tail[:, :, -1], tail[0] = least, -torch.inf, least
    return {
        "prefix_bias": prefix.to(device, dtype),
        "tail_bias": tail.to(device, dtype),
    }


def compare(inputs, **options):
    options = {"scaling": 0.3, **options}
    found = fused.ragged_attention(*inputs, **options)
    expected = expectation(inputs, **options)
    assert found.dtype == inputs[0].dtype and found.shape == expected.shape
    assert expected.isfinite().all()
    torch.testing.assert_close(found.cpu(), expected, **TOLERANCE[found.dtype])
    return found


def expectation(inputs, **options):
    """Return what the loops say, on the CPU, where they wait for nothing."""
    options = {name: x.cpu() if torch.is_tensor(x) else x for name, x in options.items()}
    return naive.ragged_attention(*(x.cpu() for x in inputs), **options)


@contextmanager
def no_waiting(device):
    """Have torch raise an error where the host waits for the device."""
    if device.type == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")


def test_twins_have_the_same_signature():
    expected = inspect.signature(naive.ragged_attention)
    assert inspect.signature(fused.ragged_attention) == expected


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(("q", "G", "t"), [(1, 1, 0), (1, 7, 21), (3, 2, 5)])
def test_types_queries_and_groups(dtype, q, G, t, device):
    inputs = problem([0, 37, 16, 1], device, G=G, q=q, t=t, dtype=dtype)
    sinks = torch.randn(2 * G, device=device, dtype=dtype)
    compare(inputs, softcap=1.5, sinks=sinks)
    compare(inputs, softcap=1.5, sinks=sinks, **biases(inputs, heads=2 * G))


@pytest.mark.parametrize("D", [1, 16, 64, 80, 96, 128])
def test_widths(D, device):
    compare(problem([5, 33], device, B=1, D=D, Dv=D, t=1))


@pytest.mark.parametrize(
    "lengths", [[0, 0], [0, 1], [40, 0], [0, 0, 0, 33], [2, 63, 1, 0, 16, 17]], ids=str
)
@pytest.mark.parametrize(("q", "t"), [(1, 0), (1, 1), (2, 17)])
def test_empty_and_short_segments(lengths, q, t, device):
    compare(problem(lengths, device, q=q, t=t))


def test_more_rows_than_one_program_takes(device):
    inputs = problem([33, 2], device, B=1, q=12)
    compare(inputs, **biases(inputs))


def test_long_units(device, monkeypatch):
    monkeypatch.setattr(fused, "LEAST_TOKENS", 1 << 12)
    inputs = problem([300, 0, 70, 129], device, t=40)
    compare(inputs, **biases(inputs))


def test_a_row_that_sees_nothing_is_zero(device):
    inputs = problem([4, 9, 0, 7], device, q=2)
    hidden = biases(inputs)
    hidden["prefix_bias"][-1] = torch.finfo(torch.float32).min
    sinks = torch.randn(6, device=device)
    found = compare(inputs, **hidden)
    assert not found[:, -1].any() and found[1, 0].any()
    assert not compare(inputs, **hidden, sinks=sinks)[:, -1].any()


def test_what_is_hidden_never_leaks(device):
    inputs = problem([40, 7], device, B=1)
    bias = torch.zeros(1, 47, device=device)
    bias[:, ::3] = torch.finfo(torch.float32).min
    clean = compare(inputs, prefix_bias=bias)
    inputs[1][::3], inputs[2][::3] = torch.nan, torch.inf
    assert torch.equal(fused.ragged_attention(*inputs, scaling=0.3, prefix_bias=bias), clean)


def test_huge_logits_do_not_overflow(device):
    queries, *others = problem([20, 3], device, B=1)
    found = compare((queries * 1e4, *others), scaling=1.0)
    assert found.isfinite().all()


def test_the_host_waits_for_nothing(device):
    inputs = problem([20, 3, 0, 70], device)
    offsets = inputs[3].as_subclass(Untold)
    with no_waiting(device):
        found = fused.ragged_attention(*inputs[:3], offsets, *inputs[4:], scaling=0.3)
    expected = expectation(inputs, scaling=0.3)
    torch.testing.assert_close(found.cpu(), expected, **TOLERANCE[torch.float32])


@pytest.mark.gpu
def test_a_gpu_uses_it(gpu, monkeypatch):
    inputs = problem([20, 3, 0, 70], gpu)
    monkeypatch.setattr("foveate.kernels.ragged_attention.split.ragged_attention", None)
    found = ragged_attention(*inputs, scaling=0.3)
    assert torch.equal(found, fused.ragged_attention(*inputs, scaling=0.3))


def test_it_is_found_where_there_is_triton(monkeypatch):
    assert in_triton("ragged_attention") is fused.ragged_attention
    in_triton.cache_clear()
    monkeypatch.setattr("foveate.kernels.dispatch.find_spec", lambda name: None)
    assert in_triton("ragged_attention") is None
    in_triton.cache_clear()


class Untold(torch.Tensor):
    """Numbers that the host may not read."""

    def tolist(self):
        raise AssertionError("the host has read the offsets")

    __int__ = __bool__ = item = __index__ = tolist

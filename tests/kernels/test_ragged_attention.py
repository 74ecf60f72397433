"""`ragged_attention` in plain torch equals its plain-loop twin."""

import inspect
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foveate.kernels import ragged_attention as ragged
from foveate.kernels.ragged_attention import Layout, layout, naive, ragged_attention, split

TOLERANCE = {  # of sums in float32 that are rounded once, at the end
    torch.float64: {"rtol": 1e-10, "atol": 1e-12},
    torch.float32: {"rtol": 1e-5, "atol": 2e-6},
    torch.bfloat16: {"rtol": 2**-7, "atol": 2**-10},
    torch.float16: {"rtol": 2**-10, "atol": 2**-13},
}
LENGTHS = [5, 0, 1, 17, 3, 9]  # of 2 rows x 3 heads


def poisoned(*shape, dtype):
    """Return random numbers, of another layout than their shape says, with NaN all around them."""
    held = torch.full((*shape[:-2], shape[-2] + 5, shape[-1] + 3), torch.nan, dtype=dtype)
    part = held[..., 2 : 2 + shape[-2], 1 : 1 + shape[-1]]
    return part.copy_(torch.randn(shape))


def flat(*shape, dtype):
    """Return random numbers, contiguous, with NaN before and after them."""
    held = torch.full((shape[0] + 7, *shape[1:]), torch.nan, dtype=dtype)
    return held[3 : 3 + shape[0]].copy_(torch.randn(shape))


def problem(lengths=LENGTHS, B=2, G=2, q=1, D=7, Dv=5, t=4, dtype=torch.float32):
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    H, S = len(lengths) // B, sum(lengths)
    return (
        poisoned(B, H * G, q, D, dtype=dtype) * 2,
        flat(S, D, dtype=dtype),
        flat(S, Dv, dtype=dtype),
        offsets,
        poisoned(B, H, t, D, dtype=dtype),
        poisoned(B, H, t, Dv, dtype=dtype),
    )


def extras(inputs, seed=0):
    """Return sinks, and biases that hide a part, everything for one query and one row's tail."""
    queries, S, t = inputs[0], len(inputs[1]), inputs[4].shape[2]
    (B, Hq, q, _), dtype = queries.shape, queries.dtype
    least = torch.finfo(dtype).min
    prefix, tail = torch.randn(q, S).to(dtype), torch.randn(B, Hq, q, t).to(dtype)
    prefix = prefix.masked_fill(torch.rand(q, S) < 0.3, least)
    tail = tail.masked_fill(torch.rand(B, Hq, q, t) < 0.3, -torch.inf)
    prefix[-1], tail[:, :, -1] = least, -torch.inf
    tail[0, :, :, :] = least
    return {"sinks": torch.randn(Hq).to(dtype), "prefix_bias": prefix, "tail_bias": tail}


def compare(inputs, **options):
    options = {"scaling": 0.3, **options}
    found = ragged_attention(*inputs, **options)
    expected = naive.ragged_attention(*inputs, **options)
    assert found.dtype == inputs[0].dtype and found.shape == expected.shape
    assert expected.isfinite().all()
    torch.testing.assert_close(found, expected, **TOLERANCE[found.dtype])
    return found


def test_twins_have_the_same_signature():
    assert inspect.signature(ragged_attention) == inspect.signature(naive.ragged_attention)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("q", [1, 2, 5])
@pytest.mark.parametrize("G", [1, 3])
@pytest.mark.parametrize("t", [0, 4])
def test_types_queries_and_groups(dtype, q, G, t):
    inputs = problem(q=q, G=G, t=t, dtype=dtype)
    compare(inputs)
    more = extras(inputs)
    compare(inputs, softcap=1.5)
    compare(inputs, sinks=more["sinks"])
    compare(inputs, prefix_bias=more["prefix_bias"])
    compare(inputs, tail_bias=more["tail_bias"][:, :1])
    compare(inputs, softcap=1.5, **more)


@pytest.mark.parametrize(
    "lengths", [[0, 0], [0, 1], [1, 1], [40, 0], [0, 0, 0, 33], [2, 63, 1, 0]], ids=str
)
@pytest.mark.parametrize("t", [0, 1, 3])
@pytest.mark.parametrize("q", [1, 9])
def test_empty_and_short_segments(lengths, t, q):
    compare(problem(lengths, t=t, q=q))
    compare(problem(lengths, B=1, t=t, q=q), softcap=3.0)


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 30), min_size=1, max_size=4),
    B=st.integers(1, 3), G=st.integers(1, 4), q=st.integers(1, 4), D=st.integers(1, 33),
    Dv=st.integers(1, 17), t=st.integers(0, 9), cut=st.integers(1, 60), all_of_it=st.booleans(),
)  # fmt: skip
def test_any_size(lengths, B, G, q, D, Dv, t, cut, all_of_it):
    inputs = problem(lengths * B, B=B, G=G, q=q, D=D, Dv=Dv, t=t)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "PIECE_TOKENS", cut)
        compare(inputs, **(extras(inputs) if all_of_it else {}))


@pytest.mark.parametrize("q", [1, 2])
def test_a_row_that_sees_nothing_is_zero(q):
    inputs = problem(q=q)
    more = extras(inputs)
    del more["sinks"]
    found = compare(inputs, **more)
    assert not found[:, -1].any() and (q == 1 or found[1, 0].any())
    found = compare(problem(t=0, q=q))
    assert not found[0, :, 2:4].any() and found[0, :, :2].any()  # head 1 of row 0 is empty
    more["sinks"] = torch.full((inputs[0].shape[1],), -torch.inf)
    assert not compare(inputs, **more)[:, -1].any(), "a sink that is none changes nothing"


def test_a_kept_layout_changes_nothing():
    inputs = problem(q=3)
    kept = Layout.of(inputs[3])
    assert kept.longest == 17
    for kind in (ragged_attention, naive.ragged_attention):
        with_it = kind(*inputs, scaling=0.3, layout=kept)
        assert torch.equal(with_it, kind(*inputs, scaling=0.3))


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_one_product_per_segment(dtype, monkeypatch):
    monkeypatch.setattr(split, "FEW_LOGITS", 0)
    inputs = problem(q=3, dtype=dtype)
    compare(inputs)
    compare(inputs, softcap=2.0, **extras(inputs))
    compare(problem([0, 0, 7, 0], t=0, q=2, dtype=dtype))


def test_huge_logits_do_not_overflow():
    queries, *others = problem()
    found = ragged_attention(queries * 1e4, *others, scaling=1.0)
    assert found.isfinite().all()


def test_no_row_hears_of_another():
    inputs = problem(q=1)
    clean = ragged_attention(*inputs, scaling=0.3)
    _, keys, values, offsets, tail_keys, tail_values = inputs
    first = int(offsets[3])  # of row 1
    for of_row in (keys[first:], values[first:], tail_keys[1], tail_values[1]):
        of_row.fill_(torch.nan)
    found = ragged_attention(*inputs, scaling=0.3)
    assert torch.equal(found[0], clean[0]) and found[1].isnan().any()


def test_what_is_hidden_never_leaks():
    inputs = problem(q=1)
    prefix_bias = torch.zeros(1, len(inputs[1]))
    prefix_bias[:, ::3] = torch.finfo(torch.float32).min
    clean = compare(inputs, prefix_bias=prefix_bias)
    inputs[1][::3] *= 1e6
    torch.testing.assert_close(compare(inputs, prefix_bias=prefix_bias), clean)


def test_torch_says_nothing_about_sparse_matrices():
    split.numbers.cache_clear()
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        ragged_attention(*problem(), scaling=1.0)
    assert not heard


def test_a_processor_has_no_use_for_triton(monkeypatch):
    monkeypatch.setattr(ragged, "in_triton", None)  # calling it would fail
    compare(problem())


def test_gradients_are_not_recorded():
    queries, *others = problem()
    assert not ragged_attention(queries.requires_grad_(), *others, scaling=1.0).requires_grad

"""`allocate`: exact totals under caps and floors, equal to exact fractions."""

import inspect

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foveate.errors import InputError
from foveate.kernels.allocate import allocate, naive

weight = st.one_of(
    st.just(0.0),
    st.sampled_from([1.0, 0.5, 0.1, 2.0, 1e-12, 1e12]),
    st.floats(0, 1e3, allow_subnormal=False),
)


@st.composite
def problems(draw):
    n = draw(st.integers(1, 9))

    def column(strategy):
        return draw(st.lists(strategy, min_size=n, max_size=n))

    cap = column(st.integers(0, 40))
    floor = [draw(st.integers(0, c)) for c in cap]
    total = draw(st.integers(0, sum(cap) + 5))
    return tuple(torch.tensor(x) for x in (column(weight), total, cap, floor))


@settings(max_examples=300, deadline=None)
@given(problems())
def test_total_caps_floors_and_twin(problem):
    weights, total, cap, floor = problem
    weights = weights.double()
    counts = allocate(weights, total, cap, floor)
    assert counts.sum() == total.clamp(floor.sum(), cap.sum())
    assert (counts >= floor).all() and (counts <= cap).all()
    assert counts.tolist() == naive.allocate(weights, total, cap, floor).tolist()


@settings(max_examples=100, deadline=None)
@given(problems())
def test_more_weight_never_gets_less(problem):
    weights, total, cap, floor = problem
    cap, floor = cap.amax().expand_as(cap), floor.amin().expand_as(floor)
    counts = allocate(weights.double(), total, cap, floor).tolist()
    for i, mine in enumerate(weights.tolist()):
        for j, other in enumerate(weights.tolist()):
            if mine > other * (1 + 1e-6):
                assert counts[i] >= counts[j]
            elif mine == other and i < j:
                assert 0 <= counts[i] - counts[j] <= 1


@settings(max_examples=60, deadline=None)
@given(problems(), st.floats(1e-3, 1e3))
def test_only_ratios_count(problem, factor):
    weights, total, cap, floor = problem
    if weights.max() > 1e6:
        return
    weights = (weights * 8).round() + 1
    assert allocate(weights, total, cap, floor).tolist() == (
        allocate(weights.double() * factor, total, cap, floor).tolist()
    )


def test_batch_is_row_by_row():
    weights, cap = torch.rand(3, 4, 7), torch.randint(5, 30, (3, 4, 7))
    floor, total = torch.randint(0, 5, (3, 4, 7)), torch.randint(0, 150, (3, 4))
    whole = allocate(weights, total, cap, floor)
    for i in range(3):
        for j in range(4):
            row = allocate(weights[i, j], total[i, j], cap[i, j], floor[i, j])
            assert whole[i, j].tolist() == row.tolist()
    assert whole.tolist() == naive.allocate(weights, total, cap, floor).tolist()


@pytest.mark.parametrize(
    ("weights", "total", "cap", "floor", "expected"),
    [
        ([1, 1, 1], 7, 10, 0, [3, 2, 2]),  # ties to the earlier
        ([0, 0, 0], 7, 10, 0, [3, 2, 2]),  # no weight: alike
        ([1, 0, 0], 7, 3, 0, [3, 2, 2]),  # the rest goes to those without weight
        ([1, 0, 0], 2, 3, 0, [2, 0, 0]),
        ([3, 1], 8, 5, 0, [5, 3]),  # overflow is handed on
        ([1e-9, 1], 4, 10, 1, [1, 3]),
        ([1, 2], 0, 10, 1, [1, 1]),  # below the floors
        ([1, 2], 99, 10, 1, [10, 10]),  # above the caps
        ([5], 3, 4, 0, [3]),
        ([0.1, 0.2, 0.3], 6, 6, 0, [1, 2, 3]),  # products that floats do not hit
        ([0.479167, 0.0625, 0.458333], 6, 6, 1, [3, 1, 2]),
        ([0.479167, 0.0625, 0.458333], 9, 6, 1, [4, 1, 4]),
        ([0.479167, 0.0625, 0.458333], 18, 6, 1, [6, 6, 6]),
    ],
)
def test_by_hand(weights, total, cap, floor, expected):
    weights = torch.tensor(weights, dtype=torch.float32)
    walls = torch.full(weights.shape, cap), torch.full(weights.shape, floor)
    for twin in (allocate, naive.allocate):
        assert twin(weights, torch.tensor(total), *walls).tolist() == expected


def test_nothing_to_share_among():
    none = torch.zeros(2, 0)
    assert allocate(none, torch.zeros(2).long(), none.long(), none.long()).shape == (2, 0)


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf")])
def test_impossible_weights_are_refused(bad):
    one = torch.tensor([3, 3])
    for twin in (allocate, naive.allocate):
        with pytest.raises(InputError, match="finite"):
            twin(torch.tensor([1.0, bad]), torch.tensor(2), one, one * 0)


def test_twins_have_the_same_signature():
    assert inspect.signature(allocate) == inspect.signature(naive.allocate)

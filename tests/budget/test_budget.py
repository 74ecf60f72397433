"""Budgets: totals, caps, shapes, and what `keep` may be."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foveate.budget import LayerShares, Pyramid, Uniform
from foveate.errors import MethodError
from foveate.types import Ranking

BUDGETS = [Uniform, Pyramid, LayerShares]


def rankings(visual, layers, H=3, seed=0):
    """Return rankings of rows with so many candidates, and random statistics."""
    made = torch.Generator().manual_seed(seed)
    T = max(visual) + 2
    tiers = torch.stack([torch.where(torch.arange(T) < v, 0, 2) for v in visual])
    return [
        Ranking(
            torch.rand(len(visual), H, T, generator=made),
            tiers,
            layer,
            {
                "strength": torch.rand(len(visual), generator=made) ** 4,
                "skewness": torch.randn(len(visual), generator=made) * 3,
            },
        )
        for layer in range(layers)
    ]


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(BUDGETS),
    st.one_of(
        st.floats(0.001, 1.0), st.sampled_from([0.1, 0.05, 0.01, 0.5, 1.0]), st.integers(1, 90)
    ),
    st.lists(st.integers(0, 60), min_size=1, max_size=4),
    st.integers(1, 12),
    st.integers(0, 3),
)
def test_totals_are_exact(budget, keep, visual, layers, k_min):
    counts = budget(keep, k_min=k_min)(rankings(visual, layers))
    assert counts.shape == (layers, len(visual), 3) and counts.dtype == torch.int64
    assert (counts == counts[..., :1]).all()
    for row, V in enumerate(visual):
        mine = counts[:, row, 0]
        total = round(keep * V * layers) if isinstance(keep, float) else min(keep, V) * layers
        assert mine.sum() == max(total, min(k_min, V) * layers)
        assert (mine <= V).all() and (mine >= min(k_min, V)).all()


@settings(max_examples=40, deadline=None)
@given(st.permutations(range(4)), st.sampled_from(BUDGETS))
def test_rows_do_not_know_each_other(order, budget):
    whole = rankings([7, 0, 31, 50], 5)
    turned = [
        Ranking(
            r.scores[order],
            r.tiers[order],
            r.layer,
            {name: value[order] for name, value in r.stats.items()},
        )
        for r in whole
    ]
    assert torch.equal(budget(0.3)(whole)[:, order], budget(0.3)(turned))


def test_uniform_gives_the_rest_to_earlier_layers():
    assert Uniform(0.1)(rankings([23], 4))[:, 0, 0].tolist() == [3, 2, 2, 2]


def test_pyramid_by_hand():
    assert Pyramid(0.1)(rankings([200], 5))[:, 0, 0].tolist() == [39, 30, 20, 10, 1]
    assert Pyramid(0.75, beta=4)(rankings([40], 3))[:, 0, 0].tolist() == [40, 30, 20]
    assert Pyramid(0.3, beta=1)(rankings([50], 4))[:, 0, 0].tolist() == [15] * 4


def test_one_layer_takes_it_all():
    for budget in BUDGETS:
        assert budget(0.5)(rankings([10], 1)).flatten().tolist() == [5, 5, 5]


def statistic(strength, skewness, V=100):
    """Return one row's rankings with given statistics."""
    tiers = torch.zeros(1, V, dtype=torch.long)
    return [
        Ranking(
            torch.rand(1, 1, V),
            tiers,
            i,
            {"strength": torch.tensor([a]), "skewness": torch.tensor([b])},
        )
        for i, (a, b) in enumerate(zip(strength, skewness, strict=True))
    ]


def counts(budget, *statistics, **options):
    return budget(statistic(*statistics, **options)).flatten().tolist()


def test_norms_and_negative_values():
    x, y = [1.0, 3.0, 4.0, 2.0], [-2.0, 0.0, 4.0, 2.0]
    assert counts(LayerShares(0.1, by=("strength",)), x, y) == [4, 12, 16, 8]
    assert counts(LayerShares(0.1, by=("skewness",), k_min=0), x, y) == [0, 0, 27, 13]
    shifted = LayerShares(0.1, by=("skewness",), negative="shift_min", k_min=0)
    assert counts(shifted, x, y) == [0, 7, 20, 13]
    assert counts(LayerShares(0.1, by=("strength",), norm="minmax", k_min=0), x, y) == [
        0,
        13,
        20,
        7,
    ]
    z = torch.tensor([[-1.5, 0.5, 1.5, -0.5]]) / 1.25**0.5
    expected = (z.softmax(-1) * 40).round().long()[0].tolist()
    assert counts(LayerShares(0.1, by=("strength",), norm="softmax_z"), x, y) == expected


@pytest.mark.parametrize("norm", ["sum", "minmax", "softmax_z"])
@pytest.mark.parametrize("value", [0.0, 0.1, 1e-30])
def test_equal_statistics_share_alike(norm, value):
    shares = LayerShares(0.1, norm=norm)
    assert counts(shares, [value] * 7, [value] * 7) == [10] * 7


@pytest.mark.parametrize("norm", ["sum", "minmax", "softmax_z"])
def test_noise_of_float_sums_decides_nothing(norm):
    noise = [1 + (-1) ** i * i * 6e-8 for i in range(7)]
    shares = LayerShares(0.1, norm=norm)
    assert counts(shares, noise, noise, V=101) == counts(shares, [1.0] * 7, [1.0] * 7, V=101)


def test_overflow():
    strength, skewness = [100.0, 1.0, 1.0], [1.0, 1.0, 1.0]
    by = ("strength",)
    assert counts(LayerShares(0.5, by=by), strength, skewness, V=10) == [10, 3, 2]
    assert counts(LayerShares(0.5, by=by, overflow="clip_only"), strength, skewness, V=10) == [
        10,
        1,
        1,
    ]


def test_a_missing_statistic_is_named():
    ranking = Ranking(torch.rand(1, 1, 4), torch.zeros(1, 4).long(), 0, {"strength": torch.ones(1)})
    with pytest.raises(MethodError, match=r"needs the statistic 'skewness'.*gives 'strength'"):
        LayerShares(0.5)([ranking])


@pytest.mark.parametrize(
    "keep",
    [
        0,
        -1,
        0.0,
        -0.1,
        float("nan"),
        float("inf"),
        1.0001,
        2.0,
        True,
        False,
        "0.1",
        None,
        1j,
        [0.1],
    ],
    ids=str,
)
def test_impossible_keep(keep):
    for budget in BUDGETS:
        with pytest.raises(MethodError, match=r"keep=.*give a float above 0 and up to 1.0.*an int"):
            budget(keep)


def test_numbers_of_numpy_become_plain():
    assert Uniform(np.float64(0.25)) == Uniform(0.25)
    assert repr(Uniform(np.int64(3)).keep) == "3"
    assert repr(Uniform(np.float32(0.5)).keep) == "0.5"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Pyramid(0.1, beta=0.5), "beta=0.5.*at least 1"),
        (lambda: Pyramid(0.1, beta=float("nan")), "beta=nan"),
        (lambda: Uniform(0.1, k_min=-1), "k_min=-1"),
        (lambda: LayerShares(0.1, by=()), "names no statistic"),
        (lambda: LayerShares(0.1, by="strength"), "give a tuple"),
        (lambda: LayerShares(0.1, norm="max"), "norm='max'.*'minmax'"),
        (lambda: LayerShares(0.1, overflow="clip"), "did you mean 'clip_only'"),
        (lambda: LayerShares(0.1, negative="clamp"), "did you mean 'clamp0'"),
    ],
)
def test_wrong_options(make, message):
    with pytest.raises(MethodError, match=message):
        make()

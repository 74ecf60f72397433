"""As many tokens as hold a share of the mass: small cases by hand, and plain loops."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foveate.budget import Reach
from foveate.errors import MethodError
from foveate.types import Ranking
from layerwise import rankings


def one(scores, tiers=None, mass=None):
    """Return the ranking of one row, scores being those of its heads."""
    scores = torch.tensor(scores).float()[None]
    none = torch.zeros(1, scores.shape[-1], dtype=torch.long)
    mass = None if mass is None else torch.tensor(mass).float()[None]
    return Ranking(scores, none if tiers is None else torch.tensor([tiers]), 0, mass=mass)


def counts(budget, *layers):
    return budget(layers)[:, 0].tolist()


def test_heads_layers_and_the_model():
    sharp, flat = one([[6.0, 2, 1, 1], [0, 0, 0, 2]]), one([[1.0, 1, 1, 1], [1, 1, 1, 1]])
    assert counts(Reach(0.5, "head"), sharp, flat) == [[1, 1], [2, 2]]
    assert counts(Reach(0.8, "head"), sharp, flat) == [[2, 1], [4, 4]]
    assert counts(Reach(0.5, "layer"), sharp, flat) == [[1, 0], [2, 2]]
    assert counts(Reach(0.8, "layer"), sharp, flat) == [[2, 1], [4, 3]]  # 10 of 12, 7 of 8
    assert counts(Reach(0.5, "model"), sharp, flat) == [[2, 1], [0, 0]]
    assert counts(Reach(1.0), sharp, flat) == [[4, 4], [4, 4]]
    assert Reach().keep == 0.95


def test_the_mass_is_counted_in_the_order_of_the_scores():
    ranking = one([[4.0, 3, 2, 1]], mass=[[0.0, 0, 9, 1]])
    assert counts(Reach(0.8), ranking) == [[3]]
    assert counts(Reach(0.95), ranking) == [[4]]


def test_pinned_tokens_come_on_top_and_tiers_come_first():
    tiers = [3, 0, 0, 1, 2, -1]
    ranking = one([[100.0, 6, 3, 1, 100, 100]], tiers)
    assert counts(Reach(0.1), ranking) == [[2]]  # the one that goes last holds a tenth
    assert counts(Reach(0.7), ranking) == [[3]]


def test_without_mass_all_have_the_same():
    assert counts(Reach(0.5, "head"), one([[0.0] * 6, [0.0] * 6])) == [[3, 3]]
    assert counts(Reach(0.6), one([[0.0] * 6, [0.0] * 6])) == [[4, 4]]
    assert counts(Reach(0.5), one([[0.0, 0]], [2, -1])) == [[0]]


def loop(found, row, share, over):
    """Return the counts [N][H] of one row, token by token."""
    line = []
    for n, ranking in enumerate(found):
        tiers = ranking.tiers if ranking.tiers.ndim == 3 else ranking.tiers[:, None]
        ties = range(tiers.shape[-1]) if ranking.ties is None else ranking.ties[row].tolist()
        mass = ranking.scores if ranking.mass is None else ranking.mass
        for h in range(ranking.scores.shape[1]):
            for j in range(ranking.scores.shape[2]):
                tier = int(tiers[row, h % tiers.shape[1], j])
                if tier in (0, 1):
                    score = float(ranking.scores[row, h, j])
                    line.append((-tier, -score, n, ties[j], h, max(0.0, float(mass[row, h, j]))))
    out = [[0] * ranking.scores.shape[1] for ranking in found]
    parts = {"head": (2, 4), "layer": (2,), "model": ()}[over]
    for group in sorted({tuple(x[i] for i in parts) for x in line}):
        mine = [x for x in line if tuple(x[i] for i in parts) == group]
        mine.sort(key=lambda x: (x[0], x[1], *((x[3], x[4], x[2]) if over == "model" else x[2:5])))
        whole, held = sum(x[5] for x in mine), 0.0
        for _, _, n, _, h, mass in mine:
            if held >= share * (1 - 1e-7) * (whole or len(mine)):
                break
            held += mass if whole else 1
            out[n][h] += 1
    return out


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32),
    st.sampled_from([0.1, 0.5, 0.9, 0.99]),
    st.sampled_from(["head", "layer", "model"]),
    st.integers(1, 4),
)
def test_counts_equal_the_loop(seed, share, over, N):
    found = rankings(seed, N, T=9, pinned=True, wild=True)
    given = Reach(share, over)(found)
    for row in range(3):
        pinned = [int((x.tiers == 3).sum(-1).reshape(3, -1)[row, 0]) for x in found]
        expected = loop(found, row, share, over)
        mine = [[int(x) - p for x in heads] for heads, p in zip(given[:, row], pinned, strict=True)]
        if over == "model" and mine != expected:  # equal scores of several layers
            assert sum(map(sum, mine)) == sum(map(sum, expected))
        else:
            assert mine == expected


def test_bounds_are_the_counts_where_no_later_layer_joins_the_line():
    found = rankings(3, 4)
    for over in ("head", "layer"):
        budget = Reach(0.6, over)
        final = budget(found)
        for m in range(1, 5):
            assert torch.equal(budget.bounds(found[:m], 4), final[:m])
    whole = Reach(0.6, "model")
    assert whole.bounds(found[:3], 4) is None
    assert torch.equal(whole.bounds(found, 4), whole(found))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mass": 0.0}, "mass=0 keeps nothing; give a number above 0 and up to 1"),
        ({"mass": 1.5}, "mass=1.5 .*from 0 to 1"),
        ({"over": "heads"}, "over='heads'.*'head'"),
    ],
    ids=str,
)
def test_bad_options(options, message):
    with pytest.raises(MethodError, match=message):
        Reach(**options)

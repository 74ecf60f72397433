"""One level of mass for all layers: small cases by hand, and exact totals."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foveate.budget import Level, Sizes, Uniform, Union
from foveate.budget.level import sizes
from foveate.errors import MethodError
from foveate.types import Ranking
from reference.elastic import online_sizes

FIRST, SECOND = [8, 1, 0.5, 0.3, 0.2], [2, 2, 2, 2, 2]


def rankings(layers, tiers=None):
    """Return the rankings of one row, alike for two heads."""
    scores = [torch.tensor(layer)[None, None].float().expand(1, 2, -1) for layer in layers]
    none = torch.zeros(1, len(layers[0]), dtype=torch.long)
    return [Ranking(x, none if tiers is None else tiers, i) for i, x in enumerate(scores)]


def counts(keep, layers, tiers=None):
    return Level(keep)(rankings(layers, tiers))[:, 0, 0].tolist()


def test_the_level_of_two_layers():
    assert counts(0.4, [FIRST, SECOND]) == [1, 3]  # every p from 0.4 to 0.6
    assert counts(2, [FIRST, SECOND]) == [1, 3]
    assert counts(0.5, [FIRST, SECOND]) == [1, 4]  # p up to 0.8
    assert counts(0.7, [FIRST, SECOND]) == [2, 5]  # p = 0.85
    assert counts(0.6, [FIRST, SECOND]) == [2, 4]  # what p = 0.8 leaves goes to the lower share
    assert counts(1.0, [FIRST, SECOND]) == [5, 5]


def test_equal_layers_and_masses_of_zero():
    assert counts(0.5, [SECOND, SECOND, SECOND]) == [3, 3, 2]  # the rest to the earlier
    assert counts(0.5, [[0.0] * 4, [0.0] * 4]) == [2, 2]
    assert counts(0.5, [[1.0, 0, 0, 0], [1.0, 1, 0, 0]]) == [2, 2]
    assert counts(0.6, [[1.0, 0, 0, 0, 0]] * 2) == [5, 1]  # nothing is missing anywhere


def test_pinned_tokens_come_off_first():
    tiers = torch.tensor([[3, 0, 0, 0, 0, 3, -1]])
    layers = [[9.0, *FIRST, 9], [9.0, *SECOND, 9]]
    assert counts(0.5, layers, tiers) == [3, 3]  # 6 of 12, 4 of them pinned
    assert counts(0.25, layers, tiers) == [2, 1]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.lists(st.floats(0, 1, width=32), min_size=6, max_size=6), min_size=1, max_size=6),
    st.integers(0, 40),
)
def test_sizes_equal_the_loop(layers, total):
    mass = torch.tensor(layers, dtype=torch.float64)
    ordered = mass.sort(descending=True).values
    whole = ordered.sum(-1, keepdim=True)
    shares = torch.where(whole > 0, ordered / whole.masked_fill(whole == 0, 1), 1 / 6).cumsum(-1)
    there = torch.full((1, len(layers)), 6)
    found = sizes(shares[None], there, torch.tensor([total]))[0].tolist()
    assert sum(found) == min(total, 6 * len(layers))
    assert found == online_sizes(layers, total)


def test_rows_have_levels_of_their_own():
    held = torch.tensor([[FIRST, SECOND], [SECOND, FIRST]]) / 10
    there = torch.full((2, 2), 5)
    found = sizes(held.double().cumsum(-1), there, torch.tensor([4, 7]))
    assert found.tolist() == [[1, 3], [5, 2]]


def test_a_union_holds_all_that_goes_last():
    tiers = torch.tensor([[0, 1, 1, 1, 3, 0]])
    layers = [[1.0] * 6, [1.0] * 6]
    assert (Union(Uniform(2))(rankings(layers, tiers)) == 4).all()
    assert (Union(Uniform(5))(rankings(layers, tiers)) == 5).all()
    assert Union(Uniform(0.3)).keep == 0.3


def test_wrong_options():
    for make in (Level, lambda keep: Sizes(keep, (1.0,))):
        with pytest.raises(MethodError, match="keep=0"):
            make(0)
    for shares in ((), (0.0, 0.0)):
        with pytest.raises(MethodError, match="shares="):
            Sizes(0.5, shares)

"""As many tokens everywhere: the largest head's count, filled up by each head's own ranking."""

import pytest
import torch

from foveate.budget import Even, HeadTable, PooledHeads, Uniform
from foveate.calibration.tables import Table
from foveate.errors import MethodError
from foveate.line import select
from foveate.method import Fitted
from foveate.types import PAD, STAYS, Ranking

N, B, H, T = 3, 2, 2, 29


def rankings(tiers=None, seed=3):
    """Return rankings of random scores, few of which are large."""
    rng = torch.Generator().manual_seed(seed)
    tiers = torch.zeros(B, T, dtype=torch.long) if tiers is None else tiers
    return [Ranking(torch.rand(B, H, T, generator=rng) ** 9, tiers, layer) for layer in range(N)]


def masked():
    """Return tiers of two rows: one has pads, both have text that stays on top."""
    tiers = torch.zeros(B, T, dtype=torch.long)
    tiers[0, :7] = PAD
    tiers[:, -5:] = STAYS
    return tiers


@pytest.mark.parametrize("tiers", [None, masked()], ids=["all may go", "pads and text"])
def test_every_head_keeps_what_the_largest_does_and_its_own_before_that(tiers):
    inner, ranked = PooledHeads(Uniform(0.3)), rankings(tiers)
    alone = [select(x, c) for x, c in zip(ranked, inner(ranked), strict=True)]
    even = [select(x, c) for x, c in zip(ranked, Even(inner)(ranked), strict=True)]
    before = torch.stack([keep.sum(-1) for keep in alone])
    after = torch.stack([keep.sum(-1) for keep in even])
    assert before.amin() < before.amax()
    for row in range(B):
        assert (after[:, row] == before[:, row].max()).all()
    for fewer, more in zip(alone, even, strict=True):
        assert not (fewer & ~more).any()
        if tiers is not None:
            assert not (more & (tiers == PAD)[:, None]).any()


def test_rows_have_lengths_of_their_own():
    ranked = rankings(masked())
    counts = Even(PooledHeads(Uniform(0.3)))(ranked)
    assert (counts[:, 0] == counts[0, 0, 0]).all() and (counts[:, 1] == counts[0, 1, 0]).all()
    assert counts[0, 0, 0] != counts[0, 1, 0]


def test_no_head_keeps_more_than_there_is():
    ranked = rankings(masked())
    counts = Even(Uniform(1000))(ranked)
    assert counts[:, 0].unique().tolist() == [T - 7 - 5]
    assert counts[:, 1].unique().tolist() == [T - 5]


def test_even_budgets_are_left_as_they_are():
    ranked = rankings()
    assert torch.equal(Even(Uniform(5))(ranked), Uniform(5)(ranked))
    assert Even(Uniform(0.25)).keep == 0.25


def test_a_table_of_another_model_is_refused_inside_as_well():
    table = HeadTable(4, Table("heads", "m", N, H, H, ((1.0, 2.0),) * N))
    assert isinstance(Even(table), Fitted)
    Even(table).check(None, N, H, H)
    with pytest.raises(MethodError):
        Even(table).check(None, N + 1, H, H)
    Even(Uniform(4)).check(None, N + 1, H, H)

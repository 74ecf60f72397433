"""Levels and mixtures of two rays against brute force, and what bounds are counted from."""

import gc
import weakref
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foveate.budget.layers import parts
from foveate.budget.level import among_first
from foveate.budget.mixed import Basin, filled, level, mixed, ratios
from foveate.budget.once import once
from layerwise import KINDS, rankings, statistics

SEEDS = st.integers(0, 2**32)


def basin_of(made, m, later, V=1000):
    floor = torch.randint(0, 30, (4,), generator=made)
    least = (m + later) * floor
    total = torch.randint(1, V * (m + later) // 2, (4,), generator=made).maximum(least)
    return Basin(total, torch.full((4,), V), floor, later)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("seed", range(12))
def test_two_rays_are_bounded_by_little_more_than_their_worst_mixture(seed, whole):
    made = torch.Generator().manual_seed(seed)
    m, later = 1 + seed, 1 + seed % 3
    rays = [statistics(KINDS[(seed + i) % 4], (4, m), made).double() for i in (0, 2)]
    x, y = (parts(ray) for ray in rays)
    basin = basin_of(made, m, later)
    told = mixed([x, y], basin, whole)
    worst = torch.zeros_like(told)
    ratios = torch.cat([torch.logspace(-9, 0, 300), torch.linspace(0.01, 1, 100)]).double()
    for a in ratios.tolist():
        for s, k in ((a, 1.0), (1.0, a)):
            weights = s * x + k * y
            if whole:  # one later layer has the rest, the others their minimum
                weights = torch.cat([weights, x.new_full((4, 1), 2 - s - k)], -1)
                one = replace(basin, later=later - 1)
                worst = worst.maximum(filled(weights, one)[:, :m])
            else:
                worst = worst.maximum(filled(weights, basin))
    assert (told >= worst - 1e-6).all()
    assert (told.sum(-1) <= 1.07 * worst.sum(-1) + m * basin.floor + 1).all()


@pytest.mark.parametrize("seed", range(20))
def test_levels_sum_to_the_room(seed):
    made = torch.Generator().manual_seed(seed)
    m = 1 + seed
    weights = statistics(KINDS[seed % 4], (2, 4, 3, m), made).double()
    basin = basin_of(made, m, 0)
    room = basin.total[:, None, None].expand(4, 1, 2)
    extra = torch.tensor([[0.0, 0.3], [0.0, 1e-9], [0.0, 5.0]]).double()
    found = level(weights, room, basin.cap, basin.floor, extra)
    low, high = (x[:, None, None, None] for x in (basin.floor, basin.cap))
    sums = (found[..., None] * weights[..., None, :]).maximum(low).minimum(high).sum(-1)
    sums = sums + found * extra
    reach = torch.where(weights > 0, high[..., 0], low[..., 0]).sum(-1)[..., None]
    assert torch.allclose(sums, torch.where(extra == 0, room.minimum(reach), room).double())


def test_ratios_reach_from_one_ray_to_both():
    t = ratios()
    assert t[0] == 0 and t[-1] == 1 and (t.diff() > 0).all() and len(t) < 50


@settings(max_examples=100, deadline=None)
@given(SEEDS, st.integers(1, 6), st.integers(0, 50), st.booleans())
def test_the_first_of_all_equal_sorting(seed, m, total, coarse):
    made = torch.Generator().manual_seed(seed)
    held = torch.rand(2, m, 8, generator=made, dtype=torch.float64)
    held = ((held * 5).round() if coarse else held).sort(-1).values
    found = among_first(held, torch.tensor([total, total // 2]))
    for row, count in enumerate((total, total // 2)):
        line = sorted(range(m * 8), key=lambda i: (held[row].flatten()[i], i))[:count]
        assert found[row].tolist() == [sum(i // 8 == layer for i in line) for layer in range(m)]


def test_a_ranking_is_read_once_and_not_kept():
    asked = []

    @once
    def total(ranking, power):
        asked.append(power)
        return ranking.scores.pow(power).sum()

    ranking = rankings(0, 1)[0]
    assert total(ranking, 2) is total(ranking, 2) and total(ranking, 3) is not total(ranking, 2)
    assert asked == [2, 3]
    life = weakref.ref(ranking)
    del ranking
    gc.collect()
    assert life() is None

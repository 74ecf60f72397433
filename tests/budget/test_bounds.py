"""Bounds: never below what is kept in the end, close to it, and quotas and pinned tokens nested."""

import gc
import weakref
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foveate.budget import (
    Dense,
    HeadTable,
    LayerShares,
    Level,
    PooledHeads,
    Pyramid,
    Sizes,
    Steps,
    Uniform,
    Union,
)
from foveate.budget.layers import parts
from foveate.budget.level import among_first
from foveate.budget.mixed import Basin, filled, level, mixed, ratios
from foveate.budget.once import once
from foveate.calibration.tables import Table
from foveate.line import select
from foveate.method import Bounded, everything
from foveate.methods import method, methods
from foveate.types import Quota, Ranking
from samples import PROMPTS, kinds_of, observations

KINDS = ("log-normal", "steep", "spiked", "zeros", "all zero", "equal", "huge", "negative", "tiny")
KEEPS = st.one_of(st.floats(0.01, 0.9), st.integers(1, 70), st.sampled_from([0.1, 0.5, 1.0, 1]))
SEEDS = st.integers(0, 2**32)


def statistics(kind, shape, made):
    """Return made-up statistics of that kind."""
    normal = torch.randn(shape, generator=made, dtype=torch.float64)
    some = torch.rand(shape, generator=made) < 0.3
    return {
        "log-normal": normal.exp(),
        "steep": (4 * normal).exp(),
        "spiked": torch.where(some, (6 + normal).exp(), (normal / 4).exp()),
        "zeros": torch.where(some, normal.exp(), 0),
        "all zero": torch.zeros(shape, dtype=torch.float64),
        "equal": torch.full(shape, 0.3, dtype=torch.float64),
        "huge": ((normal * 20).exp() * 1e20).clamp(max=3e38),
        "negative": normal * 3 - 2,
        "tiny": (normal * 9 - 60).exp(),
    }[kind].float()


def rankings(seed, N, kinds=("log-normal", "spiked"), rows=3, H=2, T=40, pinned=False, wild=False):
    """Return rankings of N layers whose rows differ in length; with `wild` in every other way."""
    made = torch.Generator().manual_seed(seed)

    def whole(least, most):
        return int(torch.randint(least, most + 1, (), generator=made))

    starts = torch.tensor([whole(0, T - 1) for _ in range(rows)])[:, None]
    place = torch.arange(T)
    tiers = torch.where(place < starts, -1, 0).expand(rows, T)
    if pinned:
        tiers = tiers.masked_fill((place >= T - whole(0, 9)) & (tiers == 0), 3)
    if wild:
        some = torch.rand(rows, T, generator=made)
        tiers = tiers.masked_fill((some < 0.2) & (tiers == 0), 1)
        tiers = tiers.masked_fill((some > 0.8) & (tiers == 0), 2)
    by_head = wild and whole(0, 1)
    share = [None, 0.0, 0.3, 0.5, 0.9, 1.0][whole(0, 5)] if wild else None
    spread, mass, steps = whole(0, wild), whole(0, wild), whole(1, 9)
    stats = [statistics(kinds[i % len(kinds)], (rows, N), made) for i in range(4)]
    names = ("strength", "skewness", "mass", "other")

    def scores():
        scores = torch.rand(rows, H, T, generator=made) ** 4
        return (scores * steps).round() if wild else scores

    def turned():
        """Return the tiers in another order for every head, so many of each as there were."""
        order = torch.rand(rows, H, T, generator=made).masked_fill(tiers[:, None] < 0, -1)
        return tiers[:, None].expand(-1, H, -1).gather(-1, order.argsort(dim=-1, stable=True))

    return [
        Ranking(
            scores(),
            turned() if by_head else tiers,
            layer,
            {name: x[:, layer] for name, x in zip(names, stats, strict=True)},
            torch.rand(rows, T, generator=made).argsort(-1) if spread else None,
            None if share is None else Quota(scores(), share),
            scores() if mass else None,
        )
        for layer in range(N)
    ]


def table(seed, N, H, free=0):
    made = torch.Generator().manual_seed(seed)
    rows = torch.rand(N, H, generator=made) * (torch.rand(N, 1, generator=made) < 0.7)
    rows[:free] = 0
    return Table("heads", "m", N, H, H, tuple(map(tuple, rows.tolist())))


def shares(draw, keep):
    """Return layer shares with any options."""
    names = st.sampled_from(["strength", "skewness", "mass", "other"])
    return LayerShares(
        keep,
        tuple(draw(st.lists(names, min_size=1, max_size=3))),
        draw(st.sampled_from(["sum", "minmax", "softmax_z"])),
        draw(st.sampled_from([0, 1, 1, 3, 30])),
        draw(st.sampled_from(["redistribute", "clip_only"])),
        draw(st.sampled_from(["clamp0", "shift_min"])),
        draw(st.sampled_from([0.0, 0.0, 0.01, 0.2])),
    )


def any_budget(draw, keep, N, H, depth=0):
    """Return one of the budgets with any options."""
    k_min, seed = draw(st.sampled_from([0, 1, 5])), draw(SEEDS)
    plain = {
        "Uniform": lambda: Uniform(keep, k_min),
        "Pyramid": lambda: Pyramid(keep, draw(st.floats(1, 30)), k_min),
        "Steps": lambda: Steps(keep, draw(st.floats(1, 30))),
        "LayerShares": lambda: shares(draw, keep),
        "Level": lambda: Level(keep),
        "HeadTable": lambda: HeadTable(
            keep,
            draw(st.sampled_from(["flat", "random", table(seed, N, H, 3 * depth)])),
            draw(st.sampled_from([0.0, 0.1, 0.6, 1.0])),
            draw(st.booleans()),
        ),
        "Sizes": lambda: Sizes(
            keep, ((1.0, 1.0, 1.0) * depth + (0.5, *(draw(st.floats(0, 1)) for _ in range(N))))[:N]
        ),
    }
    wrapped = {
        "Dense": lambda: Dense(any_budget(draw, keep, N, H, 1), draw(st.integers(0, 3))),
        "Union": lambda: Union(any_budget(draw, keep, N, H, 1)),
        "PooledHeads": lambda: PooledHeads(
            plain[draw(st.sampled_from(["Uniform", "Pyramid", "Steps", "LayerShares", "Level"]))](),
            draw(st.sampled_from([0.0, 0.2, 0.5, 1.0])),
            draw(st.booleans()),
            draw(st.sampled_from(["exact", "official"])),
        ),
    }
    choices = plain if depth else {**plain, **wrapped}
    return choices[draw(st.sampled_from(sorted(choices)))]()


def running(budget, found, layers):
    """Return the bounds after every layer, each the lowest that were told so far."""
    lowest, told = [everything(x) for x in found], []
    for m in range(1, layers + 1):
        new = budget.bounds(found[:m], layers)
        assert new.dtype == torch.int64 and new.device.type == "cpu"
        assert new.shape == (m, *found[0].scores.shape[:2])
        lowest[:m] = [a.minimum(b) for a, b in zip(lowest, new, strict=False)]
        told.append(torch.stack(lowest[:m]))
    return told


@settings(max_examples=100, deadline=None)
@given(st.data(), KEEPS, SEEDS, st.integers(1, 32))
def test_no_layer_share_is_above_its_bounds(data, keep, seed, N):
    kinds = data.draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=3))
    budget = shares(data.draw, keep)
    found = rankings(seed, N, kinds, pinned=data.draw(st.booleans()), H=1)
    if keep == 1.0 and isinstance(keep, float):
        final = torch.stack([everything(x) for x in found])
    else:
        final = budget(found)
    for m in range(1, N + 1):
        told = budget.bounds(found[:m], N)
        assert (told >= final[:m]).all()
        assert (told <= torch.stack([everything(x) for x in found[:m]])).all()
    assert torch.equal(told, final)


@settings(max_examples=100, deadline=None)
@given(st.data(), KEEPS, SEEDS, st.integers(1, 9))
def test_what_is_kept_in_the_end_is_among_what_bounds_keep(data, keep, seed, N):
    budget = any_budget(data.draw, keep, N, 2)
    assert isinstance(budget, Bounded)
    found = rankings(seed, N, KINDS, pinned=True, wild=True, T=data.draw(st.integers(2, 40)))
    whole = isinstance(keep, float) and keep >= 1
    final = torch.stack([everything(x) for x in found]) if whole else budget(found)
    kept = [select(x, count) for x, count in zip(found, final, strict=True)]
    for told in running(budget, found, N):
        for ranking, bound, keeps in zip(found, told, kept, strict=False):
            assert not (keeps & ~select(ranking, bound)).any()
    assert (told >= final).all() and (told <= final + 1).all()


@pytest.mark.parametrize("name", [info.name for info in methods()])
@pytest.mark.parametrize("prompt", ["one image", "video, text between frames", "padded batch"])
def test_every_preset_is_bounded(name, prompt):
    windows = ("snapkv", "pyramidkv", "adakv", "cake", "sparsemm", "mixkv")
    options = {"window": 4} if name in windows else {}
    for keep in (1.0,) if name == "full" else (0.3, 0.05, 14):
        made = method(name, keep, **options)
        found = [made.rank(x) for x in observations(kinds_of(*PROMPTS[prompt]), layers=6)]
        final = made.budget(found)
        for m in range(1, 7):
            told = made.budget.bounds(found[:m], 6)
            assert (told >= final[:m]).all()


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(1, 9))
def test_a_quota_keeps_no_less_of_a_larger_count(data, T):
    ranking = rankings(data.draw(SEEDS), 1, pinned=True, wild=True, T=T)[0]
    share = data.draw(st.floats(0, 1))
    scores = torch.rand_like(ranking.scores).mul(5).round()
    ranking = replace(ranking, quota=Quota(scores, share))
    before = select(ranking, torch.zeros(3, 2, dtype=torch.long))
    for count in range(1, T + 2):
        after = select(ranking, torch.full((3, 2), count))
        assert not (before & ~after).any()
        before = after


GIVEN = [
    Uniform(0.23, 2),
    Pyramid(0.23),
    Steps(0.23),
    Steps(12),
    PooledHeads(Uniform(0.23)),
    PooledHeads(Pyramid(0.23), normalize=True),
    PooledHeads(Steps(0.23), rounding="official"),
    Union(Uniform(0.23)),
    Dense(Pyramid(0.23), 2),
]


@pytest.mark.parametrize("budget", GIVEN, ids=str)
def test_what_no_ranking_changes_is_known_at_once(budget):
    found = rankings(3, 7, pinned=True, rows=4)
    final = budget(found)
    first = 2 if isinstance(budget, Dense) else 0
    for m in range(first + 1, 8):
        assert torch.equal(budget.bounds(found[:m], 7), final[:m])


@pytest.mark.parametrize("redistribute", [False, True])
def test_tables_are_known_up_to_one_token(redistribute):
    found = rankings(4, 7, pinned=True, rows=4)
    numbered = [replace(x, layer=2 * x.layer + 1) for x in found]  # every other layer
    rows = table(1, 14, 2).per_kv_head
    rows = tuple(row if i % 4 == 1 else (0.0, 0.0) for i, row in enumerate(rows))
    sizes = tuple(0.1 * i if i % 4 == 1 else 1.0 for i in range(14))
    budgets = [
        HeadTable(0.23, Table("heads", "m", 14, 2, 2, rows), 0.1, redistribute),
        HeadTable(0.23, "flat", 0.1, redistribute),
        Sizes(0.23, sizes),
    ]
    for budget in budgets:
        final = budget(numbered)
        for m in range(1, 8):
            told = budget.bounds(numbered[:m], 7)
            assert (told >= final[:m]).all() and (told <= final[:m] + 1).all()
    assert budgets[0].bounds(numbered[:1], 2) is None  # more rows than layers to come
    assert budgets[2].bounds([replace(found[0], layer=99)], 7) is None


@settings(max_examples=12, deadline=None)
@given(SEEDS, st.floats(0.02, 0.6), st.integers(2, 32), st.sampled_from(["sum", "level"]))
def test_one_weight_or_level_keeps_no_more_than_the_budget(seed, keep, N, rule):
    budget = LayerShares(keep, ("strength",)) if rule == "sum" else Level(keep)
    found = rankings(seed, N, H=1, T=60)
    whole = budget(found)[..., 0].sum(0)
    for m in range(1, N + 1):
        assert (budget.bounds(found[:m], N)[..., 0].sum(0) <= whole + m).all()


@settings(max_examples=12, deadline=None)
@given(SEEDS, st.floats(0.02, 0.6), st.integers(2, 32))
def test_two_statistics_keep_less_than_twice_the_budget(seed, keep, N):
    budget = LayerShares(keep)
    found = rankings(seed, N, ("log-normal", "spiked", "steep"), H=1, T=300)
    whole = budget(found)[..., 0].sum(0)
    for m in range(1, N + 1):
        assert (budget.bounds(found[:m], N)[..., 0].sum(0) <= 1.7 * whole + m).all()


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


def test_the_last_tokens_of_a_level_may_go_to_any_layer():
    """Ten layers fall back together when an eleventh comes, and one takes all they leave."""
    sharp, flat = [0.5, 0.4, *[0.1 / 38] * 38], [0.5, *[0.5 / 39] * 39]
    layers = [*[sharp] * 10, flat, [0.6, *[0.4 / 39] * 39]]
    tiers = torch.zeros(1, 40, dtype=torch.long)
    found = [Ranking(torch.tensor([[x]]), tiers, i) for i, x in enumerate(layers)]
    for keep in range(1, 5):
        final = Level(keep)(found)
        for m in range(1, 13):
            assert (Level(keep).bounds(found[:m], 12) >= final[:m]).all()


@dataclass(frozen=True)
class Own:
    """A budget that says nothing in advance."""

    keep: float = 0.5

    def __call__(self, rankings):
        return Uniform(self.keep)(rankings)


def test_nothing_is_known_of_layers_that_differ_or_budgets_that_tell_nothing():
    found = rankings(0, 4)
    other = [replace(x, tiers=x.tiers.masked_fill(x.tiers == 0, 2 * (i == 1))) for i, x in
             enumerate(found)]  # fmt: skip
    for budget in (*GIVEN[:-1], Level(0.5), LayerShares(0.5), HeadTable(0.5), Sizes(3, (0.5,) * 4)):
        assert budget.bounds(other[:2], 4) is None
    for budget in (Dense(Own(), 1), Union(Own()), PooledHeads(Own())):
        assert budget.bounds(found[:2], 4) is None
    assert not isinstance(Own(), Bounded)
    assert Dense(Uniform(0.5), 1).bounds(found[::-1], 5) is None  # not in the order of layers
    first = Dense(Own(), 9).bounds(found[:2], 4)
    assert torch.equal(first, torch.stack([everything(x) for x in found[:2]]))


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

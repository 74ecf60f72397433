"""Bounds: never below what is kept in the end, close to it, and quotas and pinned tokens nested."""

from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foveate.budget import (
    Dense,
    HeadTable,
    Joint,
    LayerShares,
    Level,
    PooledHeads,
    Pyramid,
    Sizes,
    Steps,
    Uniform,
    Union,
)
from foveate.calibration.tables import Table
from foveate.line import select
from foveate.method import Bounded, everything
from foveate.methods import method, methods
from foveate.types import Quota, Ranking
from layerwise import KINDS, rankings
from samples import PROMPTS, kinds_of, observations

KEEPS = st.one_of(st.floats(0.01, 0.9), st.integers(1, 70), st.sampled_from([0.1, 0.5, 1.0, 1]))
SEEDS = st.integers(0, 2**32)


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
        "Joint": lambda: Joint(keep, draw(st.sampled_from([0.0, 0.1, 1.0]))),
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

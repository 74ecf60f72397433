"""The numbers of the paper note, and the edges of AirCache."""

import itertools

import pytest
import scipy.stats
import torch

from foveate.budget import LayerShares
from foveate.errors import InputError
from foveate.method import apply, plan
from foveate.methods import aircache
from foveate.score.elite import elite
from foveate.score.statistics import skewness
from foveate.types import Observation, Ranking
from samples import kinds_of, observations

IMPORTANCE = [
    [0.05, 0.05, 0.05, 0.05, 0.30, 0.05],
    [0.02, 0.03, 0.02, 0.03, 0.02, 0.03],
    [0.40, 0.02, 0.02, 0.02, 0.02, 0.02],
]


@pytest.mark.parametrize(("alpha", "expected"), [(0.9, [2, 4]), (0.7, [2, 4, 5]), (1.0, [2])])
def test_elite_vector(alpha, expected):
    a = torch.tensor([0.10, 0.05, 0.30, 0.05, 0.29, 0.21])
    assert elite(a, torch.ones(6, dtype=torch.bool), alpha).nonzero().flatten().tolist() == expected


def described(importance):
    """Return rankings with the statistics that a score would have computed."""
    rankings = []
    for layer, values in enumerate(torch.tensor(importance)):
        scores = values.expand(1, 2, -1)
        tiers = torch.zeros(1, len(values), dtype=torch.long)
        stats = {
            "strength": values.sum()[None],
            "skewness": skewness(values.double()[None], tiers == 0),
        }
        rankings.append(Ranking(scores, tiers, layer, stats))
    return rankings


@pytest.mark.parametrize(
    ("keep", "expected"), [(1 / 3, [3, 1, 2]), (0.5, [4, 1, 4]), (1.0, [6] * 3)]
)
def test_budget_vector(keep, expected):
    rankings = described(IMPORTANCE)
    assert [float(r.stats["strength"]) for r in rankings] == pytest.approx([0.55, 0.15, 0.5])
    assert [float(r.stats["skewness"]) for r in rankings] == pytest.approx([2.449490, 0, 2.449490])
    shares = LayerShares(keep)
    weights = shares.weights(
        [torch.stack([r.stats[name] for r in rankings], -1) for name in shares.by]
    )
    assert weights[0].tolist() == pytest.approx([0.479167, 0.0625, 0.458333], abs=1e-5)
    assert shares(rankings)[:, 0].tolist() == [[k, k] for k in expected]


def test_skewness_is_that_of_scipy():
    values = torch.rand(4, 17).double() ** 3
    among = torch.rand(4, 17) < 0.7
    expected = [
        scipy.stats.skew(v[m].numpy(), bias=False) for v, m in zip(values, among, strict=True)
    ]
    assert skewness(values, among).tolist() == pytest.approx(expected)


def test_skewness_of_too_few_or_equal_values_is_zero():
    values = torch.full((1, 9), 0.1)
    assert skewness(values, torch.ones(1, 9, dtype=torch.bool)) == 0
    assert skewness(torch.rand(1, 9), torch.arange(9)[None] < 2) == 0
    assert skewness(torch.rand(1, 9), torch.zeros(1, 9, dtype=torch.bool)) == 0


def test_no_visual_token_keeps_all_text():
    for layout in ("ttttttt", "pptttst"):
        sample = observations(kinds_of(layout))
        found = plan(aircache(keep=0.1), sample)
        for keep, explain in zip(found.keep, found.explain, strict=True):
            assert (keep == sample[0].kinds.valid[:, None]).all()
            assert explain["window"] == explain["fallback"] == explain["budget"].sum() == 0


def test_one_row_without_an_image_in_a_batch():
    sample = observations(kinds_of("tttttttttttt", "tvvvvvvvvttt"))
    found = plan(aircache(keep=0.25), sample)
    assert sum(keep[0, 0].sum() for keep in found.keep) == 12 * len(sample)
    assert sum(keep[1, 0].sum() for keep in found.keep) == 4 * len(sample) + 10


@pytest.mark.parametrize("keep", [1.0, 500])
def test_keeping_everything_changes_no_bit(keep):
    sample = observations(kinds_of("ttvvvvvvtttvvvvtt"), dtype=torch.bfloat16)
    found = plan(aircache(keep), sample)
    for layer, kv in zip(sample, apply(aircache(keep), sample, found), strict=True):
        assert torch.equal(kv.packed_keys, layer.keys)
        assert torch.equal(kv.packed_values, layer.values)


def test_budget_below_the_minimum_keeps_the_minimum():
    sample = observations(kinds_of("tt" + "v" * 20 + "ttt"))
    found = plan(aircache(keep=0.001), sample)
    assert [explain["budget"].tolist() for explain in found.explain] == [[[1, 1]]] * 5
    nothing = plan(aircache(keep=0.001, k_min=0), sample)
    assert [explain["budget"].tolist() for explain in nothing.explain] == [[[0, 0]]] * 5
    assert (nothing.keep[0] == sample[0].kinds.text[:, None]).all()


def equal_scores(text="ttt"):
    """Return observations whose keys are all alike: every visual token is worth the same."""
    sample = observations(kinds_of("t" + "v" * 32 + text), layers=2)
    return [
        Observation(x.queries, torch.ones_like(x.keys), x.values, x.kinds, x.scaling, x.layer)
        for x in sample
    ]


def test_equal_scores_keep_the_first_or_are_spread():
    first = plan(aircache(keep=0.25), equal_scores())
    assert first.positions(0, 0, 0).tolist() == [0, *range(1, 9), 33, 34, 35]
    spread = plan(aircache(keep=0.25, ties="spread"), equal_scores())
    assert spread.positions(0, 0, 0).tolist() == [0, *range(1, 33, 4), 33, 34, 35]
    assert float(first.explain[0]["skewness"]) == 0


def test_spread_keeps_nested_sets():
    kept = [
        set(plan(aircache(keep=n, ties="spread"), equal_scores()).positions(0, 0, 0).tolist())
        for n in range(1, 33)
    ]
    assert all(few < more for few, more in itertools.pairwise(kept))


def test_without_an_instruction_the_image_observes_itself():
    found = plan(
        aircache(keep=0.2), observations(kinds_of("tt" + "v" * 40, "tt" + "v" * 32 + "t" * 8))
    )
    assert found.explain[0]["fallback"].tolist() == [1, 0]
    assert found.explain[0]["window"][0] == 32
    assert sum(int(keep[0, 0].sum()) for keep in found.keep) == 5 * 2 + 40


def test_every_image_has_its_floor():
    sample = observations(kinds_of("t" + "v" * 30 + "t" + "v" * 2 + "t" + "v" * 8 + "tttt"))
    for heads in ("shared", "per_kv_head"):
        found = plan(aircache(keep=0.3, per_image_floor=2, heads=heads, budget="uniform"), sample)
        for keep in found.keep:
            for image in range(3):
                assert (keep & (sample[0].kinds.span == image)[:, None]).sum(-1).min() >= 2
    # Two tokens for three images: the best of the floors, and no more than the budget.
    scarce = plan(aircache(keep=2, per_image_floor=2, budget="uniform"), sample)
    assert all(explain["budget"].eq(2).all() for explain in scarce.explain)


def test_missing_queries_are_an_error():
    sample = observations(kinds_of("tvvvvvvttttt"))
    x = sample[0]
    short = Observation(x.queries[:, :, -2:], x.keys, x.values, x.kinds, x.scaling, 0)
    with pytest.raises(InputError, match=r"queries of 2 of the 5 tokens"):
        plan(aircache(), [short])


@pytest.mark.parametrize("window", ["elite", "contiguous", "all_text", "last_visual"])
def test_the_rows_asked_for_are_enough(window):
    kinds = kinds_of("ppttvvvvvvvvtttttt", "sttvvvttvvvvvvvvtt", "tttttttttvvvvvvvvv")
    sample = observations(kinds)
    method = aircache(keep=0.3, window=window, window_rows=3)
    wanted = method.score.rows(kinds)
    order = (~wanted).int().argsort(dim=-1, stable=True)[:, : int(wanted.sum(-1).max())]
    rows = torch.where(wanted.gather(-1, order), order, -1)
    few = []
    for x in sample:
        index = order[:, None, :, None].expand(-1, x.queries.shape[1], -1, x.queries.shape[-1])
        queries = x.queries.gather(2, index).masked_fill((rows < 0)[:, None, :, None], torch.nan)
        few.append(Observation(queries, x.keys, x.values, kinds, x.scaling, x.layer, rows))
    for a, b in zip(plan(method, sample).keep, plan(method, few).keep, strict=True):
        assert torch.equal(a, b)


def test_a_row_of_nothing_but_padding_keeps_nothing():
    sample = observations(kinds_of("pppppppp", "tvvvvttt"))
    for keep in plan(aircache(0.5), sample).keep:
        assert not keep[0].any() and keep[1].any()
    empty = observations(kinds_of("pppp"))[0]
    empty = Observation(empty.queries[:, :, :0], empty.keys, empty.values, empty.kinds, 1.0, 0)
    assert not plan(aircache(0.5), [empty]).keep[0].any()

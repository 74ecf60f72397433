"""What the presets with a window have in common, and what each of them promises."""

from dataclasses import replace

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from foveate.budget import HeadTable, LayerShares, PooledHeads, Uniform
from foveate.calibration.tables import Table
from foveate.errors import MethodError
from foveate.kernels.column_stats import walk
from foveate.method import Fitted, plan
from foveate.methods import adakv, cake, method, pyramidkv, snapkv, sparsemm, vlcache
from foveate.schedule import AfterPrefill, LatestRow, WhileDecoding
from foveate.scope import All
from foveate.score import Density, Shifting
from foveate.types import PINNED, Observation, Ranking
from samples import kinds_of, observations

NAMES = ("snapkv", "pyramidkv", "adakv", "sparsemm", "vlcache", "cake")
WINDOWED = tuple(name for name in NAMES if name != "vlcache")
BATCH = (
    "p" * 9 + "tt" + "v" * 13 + "ttttt" + "v" * 5 + "ttttt",
    "sttt" + "v" * 28 + "ttttttt",
    "p" * 25 + "v" * 3 + "ttttttttttt",
)
LITERAL = {"window_of": "any", "pool_over": "sequence"}


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.keep, other.keep, strict=True))


@settings(max_examples=40, deadline=None)
@given(
    st.one_of(st.floats(0.01, 1.0), st.integers(6, 60)),
    st.integers(1, 5),
    st.sampled_from(["native", "visual"]),
    st.sampled_from([{}, LITERAL, {"pooling": "max"}, {"pool_over": "spans", "kernel": 3}]),
)
def test_all_are_snapkv_where_nothing_differs(keep, layers, scope, options):
    sample = observations(kinds_of(*BATCH), layers=1, seed=layers)
    sample = [replace(sample[0], layer=layer) for layer in range(layers)]
    options = {"keep": keep, "scope": scope, "window": 6, **options}
    found = plan(snapkv(**options), sample)
    assert same(found, plan(adakv(alpha=1.0, **options), sample))
    assert same(found, plan(pyramidkv(beta=1.0, **options), sample))
    assert same(found, plan(sparsemm(redistribute=True, **options), sample))
    if options.get("pooling", "avg") == "avg":
        assert same(found, plan(cake(gamma=0.0, **options), sample))


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(NAMES),
    st.one_of(st.floats(0.01, 1.0), st.integers(4, 40)),
    st.lists(st.sampled_from(["t", "v", "vvvv", "ttt", "s"]), min_size=1, max_size=12),
    st.integers(1, 5),
    st.integers(1, 3),
    st.integers(0, 9),
)
def test_totals_are_exact(name, keep, words, layers, H, seed):
    kinds = kinds_of("".join(words))
    sample = observations(kinds, layers=layers, Hq=2 * H, H=H, D=3, seed=seed)
    options = {} if name == "vlcache" else {"window": 4}
    options |= {"redistribute": True, "table": "random"} if name == "sparsemm" else {}
    options |= {"layers": "pyramid", "alpha": seed / 9} if name == "adakv" else {}
    found = plan(method(name, keep=keep, **options), sample)
    T = kinds.kind.shape[1]
    total = round(keep * T * layers) if isinstance(keep, float) else min(keep, T) * layers
    assert sum(int(keep.sum()) for keep in found.keep) == H * total


@pytest.mark.parametrize("keep", [0.1, 0.35, 0.8, 9])
def test_what_programs_round_is_near_the_total(keep):
    sample = observations(kinds_of("tt" + "v" * 80 + "t" * 8), layers=6, Hq=6, H=3)
    exact, official = (
        plan(adakv(keep, window=3, rounding=rounding), sample).keep
        for rounding in ("exact", "official")
    )
    for a, b in zip(exact, official, strict=True):
        assert abs(int(a.sum()) - int(b.sum())) <= 3
    counts = [int(x[0, 0].sum()) for x in plan(pyramidkv(9, window=3), sample).keep]
    steps = pyramidkv(9, window=3, rounding="official")
    official = [int(x[0, 0].sum()) for x in plan(steps, sample).keep]
    assert sum(counts) == 54 and official == [15, 13, 11, 9, 7, 5]


def test_a_table_without_redistribution_loses_what_a_head_cannot_take():
    sample = observations(kinds_of("tt" + "v" * 40 + "t" * 8), layers=2, Hq=2, H=2)
    one = Table("heads", "m", 2, 2, 2, ((1.0, 0.0), (0.0, 0.0)))

    def kept(redistribute):
        made = replace(sparsemm(0.5, window=4), budget=HeadTable(0.5, one, 0.1, redistribute))
        return [int(x.sum()) for keep in plan(made, sample).keep for x in keep[0]]

    assert kept(False) == [50, 6, 6, 6]
    assert sum(kept(True)) == 100 and kept(True)[0] == 50


@pytest.mark.parametrize("name", NAMES)
def test_heads_in_another_order_keep_the_same(name):
    sample = observations(kinds_of(*BATCH), Hq=6, H=2, seed=5)
    turned = [
        Observation(
            x.queries.roll(3, 1), x.keys.flip(1), x.values.flip(1), x.kinds, x.scaling, x.layer
        )
        for x in sample
    ]
    made = method(name, 0.4)
    for a, b in zip(plan(made, sample).keep, plan(made, turned).keep, strict=True):
        assert torch.equal(a, b.flip(1))


@pytest.mark.parametrize("rounding", ["exact", "official"])
def test_a_pyramid_does_not_know_earlier_prompts(rounding):
    short = observations(kinds_of("tt" + "v" * 30 + "t" * 8), seed=6)
    made = pyramidkv(0.3, window=4, rounding=rounding)
    alone = plan(made, short)
    plan(made, observations(kinds_of("tt" + "v" * 300 + "t" * 50), seed=7))
    assert same(alone, plan(made, short))


@pytest.mark.parametrize("name", NAMES)
def test_a_short_question_never_makes_image_tokens_observe_or_stay(name):
    kinds = kinds_of("ttt" + "v" * 60 + "tttt", "t" * 20 + "v" * 46 + "t")
    made = method(name, 0.5)
    pinned = made.scope.tiers(kinds) == PINNED
    observing = made.score.rows(kinds)
    behind = kinds.text & (kinds.visual.flip(-1).cumsum(-1).flip(-1) == 0)
    assert torch.equal(observing, behind)
    if name != "vlcache":  # whose window is a share of the budget, and does not observe
        assert torch.equal(pinned, behind)
        literal = method(name, 0.5, window_of="any")
        assert (literal.score.rows(kinds) & kinds.visual).sum(-1).tolist() == [28, 31]
        assert torch.equal(literal.scope.tiers(kinds) == PINNED, literal.score.rows(kinds))


@pytest.mark.parametrize("name", WINDOWED)
def test_an_image_at_the_end_observes_with_its_last_tokens_and_nothing_is_pinned(name):
    kinds = kinds_of("ttt" + "v" * 60)
    made = method(name, 0.5)
    assert made.score.rows(kinds).nonzero()[:, 1].tolist() == list(range(31, 63))
    assert not (made.scope.tiers(kinds) == PINNED).any()
    found = plan(made, observations(kinds))
    assert all(x["fallback"] == 1 and x["window"] == 32 for x in found.explain)


@pytest.mark.parametrize("scope", ["native", "visual"])
@pytest.mark.parametrize("name", NAMES)
def test_pads_may_hold_anything(name, scope):
    sample = observations(kinds_of(*BATCH), seed=8)
    spoilt = []
    for x in sample:
        pads = (~x.kinds.valid)[:, None, :, None]
        states = (y.masked_fill(pads, torch.nan) for y in (x.queries, x.keys, x.values))
        spoilt.append(Observation(*states, x.kinds, x.scaling, x.layer))
    made = method(name, 0.4, scope=scope)
    assert same(plan(made, sample), plan(made, spoilt))


@pytest.mark.parametrize("score", [Density(), Shifting(), Density(heads="per_kv_head")], ids=repr)
def test_blocks_of_rows_add_up(score, monkeypatch):
    kinds = kinds_of(*BATCH)
    sample = observations(kinds, layers=1, seed=9)[0]
    tiers = All().tiers(kinds)
    whole = score(sample, tiers)
    monkeypatch.setattr(walk, "BLOCK_ELEMENTS", 3 * 6 * kinds.kind.shape[1])
    parts = score(sample, tiers)
    torch.testing.assert_close(whole.scores, parts.scores, rtol=1e-4, atol=1e-7)
    for name, value in whole.stats.items():
        torch.testing.assert_close(value, parts.stats[name], rtol=1e-5, atol=0)


def test_a_window_of_one_row_has_no_variance_and_layers_are_alike():
    sample = observations(kinds_of(*BATCH), seed=10)
    found = plan(cake(0.4, window=1), sample)
    assert all((x["preference"] == 0).all() for x in found.explain)
    assert same(found, plan(snapkv(0.4, window=1), sample))


def test_heads_are_compared_by_the_mass_where_there_is_one():
    tiers = torch.zeros(1, 6, dtype=torch.long)
    scores = torch.tensor([[[9.0, 8, 7, 6, 5, 4], [3, 2, 1, 0, 0, 0]]])
    budget = PooledHeads(Uniform(3), alpha=0.0)
    assert budget([Ranking(scores, tiers, 0)])[0, 0].tolist() == [6, 0]
    assert budget([Ranking(scores, tiers, 0, mass=scores.flip(1))])[0, 0].tolist() == [0, 6]
    even = PooledHeads(Uniform(3), alpha=0.5)
    assert even([Ranking(scores, tiers, 0)])[0, 0].tolist() == [5, 1]


def test_layers_keep_a_least_share():
    tiers = torch.tensor([[0] * 18 + [3] * 2])
    rankings = [
        Ranking(torch.rand(1, 2, 20), tiers, layer, {"x": torch.tensor([float(layer == 0)])})
        for layer in range(3)
    ]

    def counts(keep, least):
        return LayerShares(keep, ("x",), k_min=0, least=least)(rankings)[:, 0, 0].tolist()

    assert counts(8, 0.0) == [20, 2, 2]
    assert counts(8, 0.25) == [14, 5, 5]  # three beside the two that are pinned
    assert counts(8, 0.9) == [8, 8, 8]  # no more than there is


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (dict(name="snapkv", keep=31), "keep=31 is less than the window, 32 tokens"),
        (dict(name="cake", keep=3, window=4), "keep=3 is less than the window, 4 tokens"),
        (dict(name="snapkv", kernel=4), "kernel=4 .*odd number"),
        (dict(name="snapkv", kernel=4, pooling="none"), "kernel=4 .*odd number"),
        (dict(name="snapkv", window=0), "window=0 .*1 or more"),
        (dict(name="pyramidkv", beta=0.5), "beta=0.5"),
        (dict(name="pyramidkv", beta=0.5, rounding="official"), "beta=0.5"),
        (dict(name="adakv", beta=0.5), "beta=0.5"),
        (dict(name="adakv", alpha=1.5), "alpha=1.5 .*from 0 to 1"),
        (dict(name="adakv", normalize=1), "normalize=1 .*True or False"),
        (dict(name="sparsemm", table="nowhere.json"), "'nowhere.json' cannot be read"),
        (dict(name="sparsemm", table=3), "table=3 .*'random'"),
        (dict(name="sparsemm", rho=-0.1), "rho=-0.1"),
        (dict(name="vlcache", window=2), "window=2 .*from 0 to 1"),
        (dict(name="vlcache", threshold=2), "threshold=2"),
        (dict(name="vlcache", least=-1), "least=-1"),
        (dict(name="cake", gamma=-1), "gamma=-1 .*at least 0"),
        (dict(name="cake", tau1=0), "tau1=0 .*at least 0.05"),
        (dict(name="cake", tau2=float("nan")), "tau2=nan"),
        (dict(name="cake", every=1, scope="visual"), "contradict"),
    ],
    ids=str,
)
def test_errors_say_what_to_do(words, message):
    with pytest.raises(MethodError, match=message):
        method(**words)


def test_a_window_may_be_more_than_the_visual_tokens_kept():
    assert method("snapkv", 3, scope="visual").budget.keep == 3


def test_when_tokens_go():
    assert snapkv().when == vlcache().when == AfterPrefill()
    assert cake().when == WhileDecoding(LatestRow("per_kv_head", 5, "all"), 1)
    assert cake(scope="visual").when == cake(every=0).when == AfterPrefill()


def test_a_table_fits_its_model():
    table = Table("heads", "org/m", 3, 4, 2, ((1.0,) * 4,) * 3)
    budget = HeadTable(0.5, table)
    assert isinstance(budget, Fitted) and not isinstance(Uniform(0.5), Fitted)
    budget.check("m", 3, 4, 2)
    HeadTable(0.5).check("m", 99, 99, 99)
    with pytest.raises(MethodError, match=r"\(3, 4, 2\), and this model \(3, 4, 4\)"):
        budget.check(None, 3, 4, 4)
    made = replace(sparsemm(0.5, window=2), budget=budget)
    plan(made, observations(kinds_of("ttvvvvtt"), layers=3, Hq=4, H=2))
    for layers, H in ((4, 2), (2, 2), (3, 4)):
        wrong = observations(kinds_of("ttvvvvtt"), layers=layers, Hq=4, H=H)
        with pytest.raises(MethodError, match=rf"3 layers of 2 .*, and {layers} layers.* of {H} "):
            plan(made, wrong)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 4), st.integers(0, 5))
def test_the_newest_of_a_window_stay_where_the_budget_is_less(T, window, layers, seed):
    keep = 0.3
    sample = observations(kinds_of("t" * T), layers=layers, seed=seed)
    total = round(keep * T * layers)
    assume(total < min(window, T) * layers)
    for name in WINDOWED:
        found = plan(method(name, keep, window=window), sample)
        for layer in range(layers):
            count = total // layers + (layer < total % layers)
            assert found.positions(layer, 0, 0).tolist() == list(range(T - count, T))

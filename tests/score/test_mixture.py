"""MixKV's parts: redundancy, stretching, identities and invariances, and its place on any host."""

import itertools
from dataclasses import replace

import pytest
import torch

import foveate
from foveate.calibration.keys import redundancy as of_prompt
from foveate.calibration.tables import save_table
from foveate.errors import MethodError
from foveate.method import apply, plan
from foveate.methods import method, methods
from foveate.score import Mixed
from foveate.score.directions import unit_mean
from foveate.score.mixture import redundancy, stretched
from samples import kinds_of, observations

ONE = "sttt" + "v" * 30 + "ttttttt"
HOSTS = [info.name for info in methods() if info.name not in ("full", "mixkv")]
ABLATION = {  # the rows of the paper's Table 4
    "baseline": {"importance": "attention", "diversity": "none"},
    "with key norms": {"importance": "attention+knorm", "diversity": "none"},
    "with value norms": {"importance": "attention+vnorm", "diversity": "none"},
    "diversity alone": {"importance": "none"},
    "plain sum": {"mix": "sum"},
    "measured before": {"mix": "offline"},
    "mixkv": {},
}


@pytest.fixture
def table(tmp_path):
    """Return the path of a table of 5 layers with 2 key-value heads."""
    shape = {"layers": 5, "query_heads": 6, "kv_heads": 2}
    content = {"format": "foveate-redundancy", "version": 1, "model": "org/some", **shape}
    save_table(tmp_path / "r.json", {**content, "redundancy": [[0.1, 0.9]] * 5})
    return str(tmp_path / "r.json")


def scores(sample, **options):
    """Return the scores [B, H, T] of the first layer, with a window of four."""
    return plan(method("mixkv", keep=0.5, window=4, **options), sample).scores[0]


@pytest.mark.parametrize("kinds", [ONE, "pppp" + "t" * 9, "ptv"], ids=str)
def test_redundancy_is_the_mean_cosine_of_two_keys(kinds):
    x = observations(kinds_of(kinds), H=3)[0]
    valid = x.kinds.valid
    found = redundancy(unit_mean(x.keys, valid), valid.sum(-1))
    for head in range(3):
        keys = torch.nn.functional.normalize(x.keys[0, head, valid[0]].double(), dim=-1)
        pairs = [float(a @ b) for a, b in itertools.permutations(keys, 2)]
        assert float(found[0, head]) == pytest.approx(sum(pairs) / len(pairs), abs=1e-6)
    whole = of_prompt(x.keys[0, :, valid[0]])
    torch.testing.assert_close(found[0].double(), whole, atol=1e-6, rtol=0)


def test_a_single_key_is_not_redundant():
    one = torch.ones(1, 1, 1, 4)
    valid = torch.ones(1, 1, dtype=torch.bool)
    assert redundancy(unit_mean(one, valid), valid.sum(-1)).tolist() == [[0.0]]


def test_stretched_values_have_the_mean_they_are_given():
    values, among = torch.randn(2, 3, 20), torch.rand(2, 1, 20) > 0.3
    found = stretched(values, among, torch.full((2, 3, 1), 0.25))
    assert (found.masked_fill(among, 0) == 0).all() and (found >= 0).all()
    mean = found.sum(-1) / among.sum(-1)
    torch.testing.assert_close(mean, torch.full((2, 3), 0.25))
    flat = 3 + 1e-7 * values
    assert (stretched(flat, among, torch.ones(2, 3, 1)) == 0).all()
    assert (stretched(values, torch.zeros_like(among), torch.ones(2, 3, 1)) == 0).all()


@pytest.mark.parametrize("options", ABLATION.values(), ids=ABLATION)
@pytest.mark.parametrize("host", ["snapkv", "pyramidkv", "adakv", "sparsemm"])
def test_every_row_of_the_ablation_is_another_method(host, options, table):
    given = {"table": table} if options.get("mix") == "offline" else {}
    made = method(f"mixkv+{host}", keep=0.4, window=4, **options, **given)
    sample = observations(kinds_of(ONE))
    found = plan(made, sample)
    kept = [sum(int(mask.sum()) for mask in found.keep)]
    assert kept == [sum(int(m.sum()) for m in plan(method(host, keep=0.4, window=4), sample).keep)]
    assert len({method("mixkv", **o, **({"table": table} if "offline" in o.values() else {}))
                for o in ABLATION.values()}) == len(ABLATION)  # fmt: skip


@pytest.mark.parametrize("host", HOSTS)
def test_attention_alone_is_the_host(host):
    sample = observations(kinds_of(ONE, "ppppp" + "t" * 5 + "v" * 21 + "t" * 10), seed=4)
    for keep in (0.3, 40):
        inner = method(host, keep=keep)
        outer = method("mixkv", host=inner, importance="attention", diversity="none")
        assert (outer.scope, outer.budget, outer.reduce, outer.when) == (
            inner.scope, inner.budget, inner.reduce, inner.when,
        )  # fmt: skip
        a, b = plan(inner, sample), plan(outer, sample)
        assert all(torch.equal(x, y) for x, y in zip(a.keep, b.keep, strict=True))
        for x, y in zip(apply(inner, sample, a), apply(outer, sample, b), strict=True):
            assert torch.equal(x.packed_keys, y.packed_keys)
        ranking, mixed = inner.rank(sample[0]), outer.rank(sample[0])
        assert ranking.state.keys() == mixed.state.keys()
        assert all(torch.equal(ranking.state[name], mixed.state[name]) for name in ranking.state)


@pytest.mark.parametrize("host", HOSTS)
def test_any_method_can_be_the_host(host):
    sample = observations(kinds_of(ONE, "ppppp" + "t" * 5 + "v" * 21 + "t" * 10), seed=4)
    inner, outer = method(host, keep=0.3), method(f"mixkv+{host}", keep=0.3)
    assert isinstance(outer.score, Mixed) and outer == method("mixkv", host=inner)
    a, b = plan(inner, sample), plan(outer, sample)
    for x, y in zip(a.keep, b.keep, strict=True):
        assert torch.equal(x.sum(-1), y.sum(-1))
    assert all(s.isfinite().all() for s in b.scores)


@pytest.mark.parametrize("host", ["adakv", "prefixkv"])
def test_budgets_are_drawn_from_the_host_s_scores(host):
    sample = observations(kinds_of(ONE), seed=1)
    inner, outer = method(host, keep=0.4), method(f"mixkv+{host}", keep=0.4)
    for a, b in zip(plan(inner, sample).explain, plan(outer, sample).explain, strict=True):
        assert torch.equal(a["budget"], b["budget"])


def test_long_keys_of_a_head_change_nothing():
    sample = observations(kinds_of(ONE))[:1]
    factor = torch.tensor([0.01, 300.0])[None, :, None, None]
    # The queries shrink as the keys grow, so that the attention stays.
    wide = factor.repeat_interleave(3, 1)
    scaled = [replace(x, keys=x.keys * factor, queries=x.queries / wide) for x in sample]
    torch.testing.assert_close(scores(sample), scores(scaled), rtol=1e-4, atol=1e-6)
    alone = {"importance": "none"}
    torch.testing.assert_close(
        scores(sample, **alone), scores(scaled, **alone), rtol=1e-4, atol=1e-6
    )


def test_long_values_of_a_head_change_nothing():
    sample = observations(kinds_of(ONE))[:1]
    factor = torch.tensor([0.01, 300.0])[None, :, None, None]
    scaled = [replace(x, values=x.values * factor) for x in sample]
    for importance in ("vnorm", "attention+vnorm"):
        torch.testing.assert_close(
            scores(sample, importance=importance), scores(scaled, importance=importance)
        )


@pytest.mark.parametrize("mix", ["head", "half", "sum"])
@pytest.mark.parametrize("scale", ["code", "paper"])
def test_equal_values_and_empty_keys_are_numbers(mix, scale):
    for x in (
        lambda x: replace(x, values=torch.ones_like(x.values)),
        lambda x: replace(x, keys=torch.zeros_like(x.keys)),
        lambda x: replace(x, keys=torch.zeros_like(x.keys), values=torch.zeros_like(x.values)),
        lambda x: replace(x, keys=torch.ones_like(x.keys)),
    ):
        sample = [x(o) for o in observations(kinds_of(ONE))]
        for importance in ("attention+vnorm", "attention+knorm", "none"):
            found = scores(sample, mix=mix, scale=scale, importance=importance)
            assert found.isfinite().all()
    sample = [replace(o, values=torch.ones_like(o.values)) for o in observations(kinds_of(ONE))]
    alone = {"diversity": "none"}
    assert torch.equal(scores(sample, **alone), scores(sample, importance="attention", **alone))


def test_nothing_in_pads_matters():
    sample = observations(kinds_of("ppppp" + ONE))
    pads = ~sample[0].kinds.valid[:, None, :, None]
    for value in (torch.nan, torch.inf):
        spoiled = [
            replace(
                x,
                queries=x.queries.masked_fill(pads, value),
                keys=x.keys.masked_fill(pads, value),
                values=x.values.masked_fill(pads, value),
            )
            for x in sample
        ]
        for options in ({}, {"importance": "attention+knorm", "scale": "paper"}):
            a, b = scores(sample, **options), scores(spoiled, **options)
            assert torch.equal(a[..., 5:], b[..., 5:]) and b.isfinite().all()


def test_heads_are_ranked_by_themselves():
    sample = observations(kinds_of(ONE), Hq=6, H=3)
    order, wide = [2, 0, 1], [4, 5, 0, 1, 2, 3]
    turned = [
        replace(x, queries=x.queries[:, wide], keys=x.keys[:, order], values=x.values[:, order])
        for x in sample
    ]
    # Rounded shares go to the earlier head of two; with alpha=0 there are none.
    for made in (method("mixkv", keep=0.4), method("mixkv+adakv", keep=0.4, alpha=0.0)):
        a, b = plan(made, sample), plan(made, turned)
        assert all(torch.equal(x[:, order], y) for x, y in zip(a.keep, b.keep, strict=True))


def test_a_redundant_head_is_ranked_by_diversity():
    x = observations(kinds_of(ONE))[0]
    alike = x.keys * 0.01 + 1
    found = scores([replace(x, keys=alike)])[..., :-7]
    apart = scores([replace(x, keys=alike)], importance="none")[..., :-7]
    torch.testing.assert_close(found, apart, atol=0.01, rtol=0.1)


def test_half_and_table_are_what_they_say(table):
    sample = observations(kinds_of(ONE))
    D = scores(sample, importance="none")
    A = scores(sample, diversity="none")
    torch.testing.assert_close(scores(sample, mix="half"), (D + A) / 2)
    r = torch.tensor([0.1, 0.9])[None, :, None]
    mixed = scores(sample, mix="offline", table=table)
    torch.testing.assert_close(mixed[..., :-4], (r * D + (1 - r) * A)[..., :-4])


def test_a_table_of_another_model_is_refused(table):
    made = method("mixkv", mix="offline", table=table)
    made.score.check("org/some", 5, 6, 2)
    for shape in (("org/other", 5, 6, 2), ("org/some", 6, 6, 2)):
        with pytest.raises(MethodError, match=r"redundancy table .*of org/some"):
            made.score.check(*shape)
    for sample in (observations(kinds_of(ONE), layers=6), observations(kinds_of(ONE), H=3)):
        with pytest.raises(MethodError, match="has 5 layers of 2 key-value heads"):
            plan(made, sample)


def test_a_table_inside_the_host_is_checked_too(table):
    twice = Mixed(method("mixkv", mix="offline", table=table).score)
    with pytest.raises(MethodError, match=r"redundancy table .*of org/some"):
        twice.check("org/other", 5, 6, 2)


def test_decoding_is_the_host_s():
    assert method("mixkv+h2o").when == foveate.h2o().when
    assert method("mixkv+h2o", every=4, recent=0.1).when == foveate.h2o(every=4, recent=0.1).when
    assert method("mixkv+h2o").budget.keep == 0.2 and method("mixkv").budget.keep == 0.1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (dict(name="mixkv+nothing"), "no method 'nothing'"),
        (dict(name="mixkv+"), "no method ''"),
        (dict(name="foo+bar"), r"no method 'foo\+bar'"),
        (dict(name="+mixkv"), r"no method '\+mixkv'"),
        (dict(name="mixkv+mixkv"), "cannot be its own host"),
        (dict(name="snapkv+adakv"), r"snapkv takes no host, .*'snapkv\+adakv'; mixkv does"),
        (dict(name="mixkv+adakv+h2o"), "adakv takes no host"),
        (dict(name="mixkv+h2o", host="snapkv"), "has a host, and host='snapkv' came; give one"),
        (dict(name="mixkv", host=3), "host=3 cannot be used; give the name"),
        (dict(name="mixkv", keep=0.1, host_keep=0.5), "keep and host_keep are one option"),
        (dict(name="mixkv", window=8, host_window=9), "window and host_window are one option"),
        (dict(name="mixkv", scope="visual", host_scope="native"), "scope and host_scope are one"),
        (dict(name="mixkv", alpha=0.5), "neither mixkv nor its host snapkv has .* 'alpha'; known"),
        (dict(name="mixkv", importence="none"), "did you mean 'importance'?"),
        (dict(name="mixkv+adakv", alpha=7), "alpha=7 .*from 0 to 1"),
        (dict(name="mixkv", scope="unified"), "scope='unified'.*'native', 'visual'"),
        (dict(name="mixkv", host=foveate.h2o(), keep=0.1), "finished method, and keep came"),
        (dict(name="mixkv", host=foveate.h2o(), scope="native", every=3), "scope, every came"),
        (dict(name="mixkv", host=foveate.mixkv()), "cannot be its own host"),
        (dict(name="mixkv", mix="offline"), "mix='offline' came without a table"),
        (dict(name="mixkv", table="nowhere.json"), "redundancy table 'nowhere.json' cannot be"),
        (dict(name="mixkv", importance="none", diversity="none"), "leave nothing to rank by"),
        (dict(name="mixkv", mix="quarter"), "mix='quarter'.*'offline'"),
        (dict(name="mixkv+full", keep=0.5), "keep=0.5 does not go with full"),
    ],
    ids=str,
)
def test_errors_say_what_to_do(words, message):
    with pytest.raises(MethodError, match=message):
        method(**words)


def test_a_table_without_offline_is_a_contradiction(table):
    with pytest.raises(MethodError, match="mix='head' came with a table"):
        method("mixkv", table=table)


def test_the_table_of_a_host_has_a_name_of_its_own():
    assert method("mixkv+sparsemm", host_table="random") == method(
        "mixkv", host=foveate.sparsemm(table="random")
    )


def test_what_is_told_of_it():
    (info,) = (info for info in methods() if info.name == "mixkv")
    assert info.more == "host options" and "host_options" not in map(str, info.options)
    assert [option.name for option in info.options][:2] == ["keep", "host"]
    assert all(not other.more for other in methods() if other.name != "mixkv")

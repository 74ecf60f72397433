"""SnapKV, PyramidKV, AdaKV, SparseMM, VL-Cache and CAKE equal their plain loops."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from foveate.calibration.tables import save_table
from foveate.method import plan
from foveate.methods import method
from foveate.types import Observation, TokenKinds
from reference.common import Row, behind, group_mean, observed, pool, unbiased, window_in
from reference.layered import cake, preference, sparsity, vlcache
from reference.window import adakv, look, pyramidkv, snapkv, sparsemm, split
from samples import PROMPTS, kinds_of, observations

TWINS = {x.__name__: x for x in (snapkv, pyramidkv, adakv, sparsemm, vlcache, cake)}
GRIDS = {  # of the images of every row; some do not fit
    "one image": (((1, 29, 1),),),
    "two images": (((1, 1, 13), (1, 2, 9)),),
    "video, text between frames": (((1, 2, 3), (1, 3, 2), (1, 1, 6), (1, 6, 1)),),
    "padded batch": (((1, 1, 13), (1, 5, 1)), ((2, 2, 7),), ((1, 1, 3),)),
}
LITERAL = {"window_of": "any", "pool_over": "sequence"}
KEEPS = [{"keep": keep} for keep in (0.02, 0.3, 0.77, 1.0, 15, 1000)]
VISUAL = [{"scope": "visual", "keep": keep} for keep in (0.01, 0.3, 5)]
POOLED = [
    LITERAL,
    {**LITERAL, "pooling": "max", "kernel": 7},
    {"pool_over": "spans", "kernel": 3},
    {"pool_over": "spans", "pooling": "max"},
    {"pooling": "max", "keep": 0.3},
    {"pooling": "none", "keep": 0.3},
    {"kernel": 1, "keep": 0.3},
    {"window_of": "any", "scope": "visual", "keep": 0.3},
    {**LITERAL, "scope": "visual", "keep": 0.3},
]
WINDOWS = [{"window": 1, "keep": 0.3}, {"window": 3, "keep": 4}, {"window": 50, "keep": 0.6}]
OFFICIAL = {"rounding": "official"}
SWITCHES = {
    "snapkv": [*POOLED, *WINDOWS],
    "pyramidkv": [
        *WINDOWS,
        {"beta": 1.0, "keep": 0.4},
        {"beta": 3.5, "keep": 0.4},
        {**OFFICIAL, "keep": 0.3, "window": 2},
        {**OFFICIAL, "keep": 0.1, "window": 2},
        {**OFFICIAL, "keep": 0.8},
        {**OFFICIAL, "keep": 7, "window": 2, "beta": 2.5},
        {**OFFICIAL, "keep": 0.3, "scope": "visual"},
    ],
    "adakv": [
        *WINDOWS,
        *[{"alpha": alpha, "keep": 0.4} for alpha in (0.0, 0.5, 1.0)],
        {"normalize": True, "keep": 0.4},
        {"normalize": True, "alpha": 0.0, "keep": 0.2, "scope": "visual"},
        {"layers": "pyramid", "keep": 0.5},
        {"layers": "pyramid", "beta": 2.0, "keep": 9, "window": 4},
        {**OFFICIAL, "keep": 0.4},
        {**OFFICIAL, "keep": 0.4, "layers": "pyramid", "window": 3},
        {**OFFICIAL, "keep": 0.4, "normalize": True, "scope": "visual"},
    ],
    "sparsemm": [
        *WINDOWS,
        {"redistribute": True, "keep": 0.3},
        {"table": "random", "keep": 0.3},
        {"table": "random", "keep": 0.5, "redistribute": True},
        {"table": "file", "keep": 0.1, "window": 2},
        {"table": "file", "keep": 0.5},
        {"table": "file", "keep": 0.5, "rho": 0.0},
        {"table": "file", "keep": 0.5, "redistribute": True},
        {"table": "file", "keep": 9, "window": 4, "rho": 0.5, "redistribute": True},
        {"table": "file", "keep": 0.5, "rho": 1.0, "scope": "visual"},
    ],
    "vlcache": [
        {"threshold": 0.0},
        {"threshold": 0.5, "keep": 0.3},
        {"window": 0.0, "keep": 0.3},
        {"window": 1.0, "keep": 0.3},
        {"window": 0.4, "keep": 7},
        {"heads": "per_kv_head", "keep": 0.3, "threshold": 0.1},
        {"least": 0.0, "threshold": 0.9, "keep": 0.2},
        {"least": 0.15, "threshold": 0.9, "keep": 0.2},
        {"least": 0.5, "keep": 0.2},
    ],
    "cake": [
        *WINDOWS,
        LITERAL,
        {"gamma": 0.0, "keep": 0.4},
        {"tau1": 0.4, "tau2": 2.3, "keep": 0.4},
        {"tau1": 1.6, "tau2": 0.4, "keep": 0.4},
        {"kernel": 1, "keep": 0.4},
        {"pool_over": "spans", "kernel": 3, "keep": 0.4},
    ],
}
CASES = [
    (name, options) for name, own in SWITCHES.items() for options in ({}, *KEEPS, *VISUAL, *own)
]


def prompt(name):
    kinds = kinds_of(*PROMPTS[name])
    return TokenKinds(kinds.kind, kinds.span, kinds.special, GRIDS.get(name, ()))


def table(kind, N, Hq, H):
    """Return what `sparsemm` takes as a table of that kind, and the scores of its twin."""
    made = torch.Generator().manual_seed(3)
    scores = torch.rand(N, Hq, generator=made, dtype=torch.float64).pow(6)
    scores[0, 0] = 0.0 if N * Hq > 1 else 1.0
    if kind == "random":
        scores = method("sparsemm", table="random").budget.scores(range(N), H)
    return scores.tolist()


def saved(path, scores, H):
    head = {"format": "foveate-heads", "version": 1, "model": "m", "scores": scores}
    shape = {"layers": len(scores), "query_heads": len(scores[0]), "kv_heads": H}
    save_table(path, {**head, **shape})
    return str(path)


def worth(name, options, layers, row, scaling, scope):
    """Return the scores [N][H, T] that tokens are ranked by, and the layers' own numbers."""
    if name == "vlcache":
        rows = behind(row) or [j for j, x in enumerate(row.kind) if x == 1][-32:]
        seen = [observed(Q, K, scaling, rows) for Q, K, _ in layers]
        H = layers[0][1].shape[0]
        sums = [a.sum(1) for a in seen]
        if options.get("heads", "shared") == "shared":
            scores = [np.tile(x.mean(0), (H, 1)) for x in sums]
        else:
            scores = [group_mean(x, H) for x in sums]
        least = options.get("threshold", 0.01)
        return scores, [1 - np.mean([sparsity(head, rows, least) for head in a]) for a in seen]
    ours = {**split(options)[0]}
    if name != "cake":
        return look(layers, row, scaling, scope, **ours).scores, None
    own = window_in(row, ours.get("window", 32), ours.get("window_of", "text"), scope)
    seen = [observed(Q, K, scaling, own.rows) for Q, K, _ in layers]
    taus = [options.get(tau, 1.0) for tau in ("tau1", "tau2")]
    asks = [preference(a, own.going, *taus) for a in seen]
    raw = [
        np.array([x.mean(0) + options.get("gamma", 200.0) * unbiased(x) for x in a]) for a in seen
    ]
    how = (ours.get("kernel", 5), "avg", ours.get("pool_over", "rows"))
    return [
        pool(group_mean(x, K.shape[0]), row, own.columns, *how)
        for x, (_, K, _) in zip(raw, layers, strict=True)
    ], asks


def assert_kept(found, expected, scores):
    """Assert that the positions are the same, but for tokens that are worth the same."""
    ours, theirs = sorted(set(found) - set(expected)), sorted(set(expected) - set(found))
    assert len(ours) == len(theirs), (found, expected)
    np.testing.assert_allclose(np.sort(scores[ours]), np.sort(scores[theirs]), rtol=1e-5)


def assert_equals_reference(name, sample, options, tmp_path):
    (_, Hq, _, _), H, N = sample[0].queries.shape, sample[0].keys.shape[1], len(sample)
    scope, scaling = options.get("scope", "native"), sample[0].scaling
    given, told = dict(options), dict(options)
    if options.get("table") in ("random", "file"):
        told["table"] = table(options["table"], N, Hq, H)
    if options.get("table") == "file":
        given["table"] = saved(tmp_path / "heads.json", told["table"], H)
    made = method(name, **given)
    told["keep"] = made.budget.keep
    found = plan(made, sample)
    for b in range(len(sample[0].keys)):
        kinds = sample[0].kinds
        start = int((kinds.kind[b] == -1).sum())
        row = Row(
            kinds.kind[b, start:].tolist(),
            kinds.span[b, start:].tolist(),
            kinds.grids[b] if kinds.grids else (),
        )
        layers = [
            tuple(x[b, :, start:].double().numpy() for x in (o.queries, o.keys, o.values))
            for o in sample
        ]
        expected = TWINS[name](layers, row, scaling, **told)
        scores, asks = worth(name, options, layers, row, scaling, scope)
        for number, positions in enumerate(expected):
            may_go = [j for j in range(len(row.kind)) if scope == "native" or row.kind[j]]
            ours = found.scores[number][b, :, start:][:, may_go]
            exact = 1e-4 if name == "cake" else 2e-5  # differences lose digits
            np.testing.assert_allclose(ours, scores[number][:, may_go], rtol=exact, atol=1e-7)
            if asks is not None:
                stat = found.explain[number]["density" if name == "vlcache" else "preference"]
                np.testing.assert_allclose(float(stat[b]), asks[number], rtol=1e-4)
            for head, twin in enumerate(positions):
                kept = (found.positions(number, b, head) - start).tolist()
                assert_kept(kept, twin, scores[number][head])


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_every_switch(name, options, tmp_path):
    sample = observations(prompt("padded batch"), seed=1)
    window = {} if "window" in options or name == "vlcache" else {"window": 6}
    assert_equals_reference(name, sample, {**window, **options}, tmp_path)


@pytest.mark.parametrize("heads", [(6, 2), (4, 4), (7, 1)], ids=str)
@pytest.mark.parametrize("layout", PROMPTS)
@pytest.mark.parametrize("name", TWINS)
def test_every_prompt(name, layout, heads, tmp_path):
    Hq, H = heads
    sample = observations(prompt(layout), Hq=Hq, H=H, seed=2)
    assert_equals_reference(name, sample, {"keep": 0.4}, tmp_path)


@pytest.mark.parametrize("sharpness", [0.01, 1.0, 30.0])
@pytest.mark.parametrize("name", TWINS)
def test_flat_and_peaked_attention(name, sharpness, tmp_path):
    sample = observations(prompt("one image"), sharpness=sharpness, seed=3)
    assert_equals_reference(name, sample, {"keep": 0.4}, tmp_path)


@pytest.mark.parametrize("name", TWINS)
def test_keys_that_repeat_and_a_sink(name, tmp_path):
    sample = []
    for x in observations(prompt("padded batch"), seed=4):
        keys = x.keys[:, :, torch.arange(x.keys.shape[2]) % 7].clone()
        keys[:, :, 0] = 3 * x.queries.mean(2).unflatten(1, (2, -1)).mean(2)
        sample.append(Observation(x.queries, keys, x.values, x.kinds, x.scaling, x.layer))
    assert_equals_reference(name, sample, {"keep": 0.4}, tmp_path)


def random_case(draw):
    """Return a made-up batch with some grids, a preset and a made-up choice of its switches."""
    length, prompts, grids = draw.randint(6, 40), [], []
    for _ in range(draw.randint(1, 3)):
        word, known = "p" * draw.randint(0, length - 4), []
        while len(word) < length:
            word += draw.choice(["t", "tt", "s"])
            if draw.random() < 0.4:
                height, width = draw.randint(1, 3), draw.randint(1, 4)
                word += "v" * height * width
                known.append(draw.choice([(1, height, width), (height, 1, width)]))
        prompts.append(word[:length])
        grids.append(tuple(known))
    name = draw.choice(list(TWINS))
    options = dict(draw.choice(SWITCHES[name]))
    for _ in range(2):
        options.update(draw.choice(SWITCHES[name]))
    options["keep"] = draw.choice([0.01, 0.1, 0.3, 0.5, 0.9, 3, 9])
    if isinstance(options["keep"], int) and name != "vlcache":
        options["window"] = draw.randint(1, options["keep"])
    options.setdefault("window", 0.3 if name == "vlcache" else draw.randint(1, 12))
    options["scope"] = draw.choice(["native", "native", "visual"])
    return replace(kinds_of(*prompts), grids=tuple(grids)), name, options


@pytest.mark.parametrize("seed", range(80))
def test_random_prompts_and_switches(seed, tmp_path):
    draw = random.Random(seed)
    kinds, name, options = random_case(draw)
    H, groups = draw.randint(1, 3), draw.randint(1, 3)
    shape = dict(layers=draw.randint(1, 6), Hq=H * groups, H=H, seed=seed)
    sample = observations(kinds, sharpness=draw.choice([0.3, 2.0, 6.0]), **shape)
    assert_equals_reference(name, sample, options, tmp_path)

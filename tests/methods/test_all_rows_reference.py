"""H2O, RoCo, TOVA, StreamingLLM, Elastic, PrefixKV, TGV-KV and LOOK-M equal their plain loops."""

import random
from types import SimpleNamespace

import numpy as np
import pytest

from foveate.calibration.tables import save_table
from foveate.method import apply, plan
from foveate.methods import method
from foveate.types import Observation
from reference.dense import attention, column_sums, group_mean
from reference.elastic import elastic, online_sizes, prefixkv
from reference.lookm import lookm
from reference.sums import h2o, moments, roco, streaming, tova
from reference.tgvkv import grounded, observing, tgvkv
from samples import ONE, PROMPTS, kinds_of, observations, only_row, random_prompts

TWINS = {twin.__name__: twin for twin in (h2o, roco, tova, streaming, elastic, prefixkv, tgvkv)}
TWINS["lookm"] = lookm
SHARED = ("tova", "elastic", "prefixkv", "tgvkv")
KEEPS = [{"keep": keep} for keep in (0.02, 0.3, 0.77, 1.0, 15, 1000)]
VISUAL = [{"scope": "visual", "keep": keep} for keep in (0.01, 0.3, 5)]
RECENT = [{"recent": 0.0}, {"recent": 0.3}, {"recent": 1.0}, {"statistic": "mean", "keep": 0.4}]
SINKS = [{"sinks": 0, "keep": 0.3}, {"sinks": 7, "keep": 0.3}, {"sinks": 7, "keep": 0.1}]
SWITCHES = {
    "h2o": [*RECENT, {"recent": 0.7, "keep": 11}],
    "roco": [
        *SINKS,
        {"variant": "lookm"},
        {"variant": "lookm", "keep": 7},
        {"spread": 0.0, "keep": 0.6},
        {"spread": 1.0, "keep": 0.6},
        {"newest": 0, "spread": 0.5},
    ],
    "tova": [],
    "streaming": SINKS,
    "elastic": [*SINKS, {"merge": False}, {"merge": True, "scope": "visual"}, {"merge": True}],
    "prefixkv": [*SINKS, {"sizes": "table", "keep": 0.4}, {"sizes": "table", "scope": "visual"}],
    "tgvkv": [*SINKS, {"layers": "uniform"}, {"layers": "uniform", "scope": "visual"}],
    "lookm": [
        *SINKS,
        {"merge": "averaged"},
        {"merge": "weighted"},
        {"merge": "none"},
        {"fold": "values"},
        {"fold": "both", "merge": "weighted", "budget": "strict"},
        {"budget": "strict"},
        {"budget": "strict", "keep": 9},
        {"text_prior": False},
        {"text_prior": False, "within_modality": True, "merge": "averaged"},
        {"within_modality": True, "budget": "strict", "keep": 0.4},
        {"alpha1": 0.05},
        {"alpha2": 0.05, "keep": 0.3},
        {"alpha1": 0.3, "alpha2": 0.1, "keep": 0.4},
        {"alpha1": 2, "keep": 9, "sinks": 1},
    ],
}
CASES = [
    (name, options) for name, own in SWITCHES.items() for options in ({}, *KEEPS, *VISUAL, *own)
]
SHARES = [0.9, 0.2, 0.5, 0.0, 0.7]  # of a table, one per layer


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Return the path of a table of five layer sizes."""
    path = tmp_path_factory.mktemp("sizes") / "sizes.json"
    shape = {"layers": 5, "query_heads": 6, "kv_heads": 2}
    save_table(
        path,
        {"format": "foveate-sizes", "version": 1, "model": "m", "shares": SHARES, **shape},
    )
    return str(path)


def worth(name, options, Q, K, kind, scaling):
    """Return the scores [H, T] that tokens are ranked by."""
    H, T = K.shape[:2]
    if name == "streaming":
        return np.tile(np.arange(T) + 1.0, (H, 1))
    if name == "tova":
        return np.tile(attention(Q, K, scaling)[:, -1].mean(0), (H, 1))
    if name == "tgvkv":
        return np.tile(grounded(attention(Q, K, scaling).mean(0), observing(kind), kind)[0], (H, 1))
    if name == "roco" and options.get("variant") != "lookm":
        return moments(Q, K, scaling)[0]
    sums = column_sums(Q, K, scaling)
    sums = np.tile(sums.mean(0), (H, 1)) if name in SHARED else group_mean(sums, H)
    return sums / (T - np.arange(T)) if options.get("statistic") == "mean" else sums


def assert_kept(found, expected, scores):
    """Assert that the positions are the same, but for tokens that are worth the same."""
    ours, theirs = sorted(set(found) - set(expected)), sorted(set(expected) - set(found))
    assert len(ours) == len(theirs), (found, expected)
    np.testing.assert_allclose(np.sort(scores[ours]), np.sort(scores[theirs]), rtol=1e-5)


def assert_equals_reference(name, sample, options, table=None):
    given = {**options, **({"sizes": table} if "sizes" in options else {})}
    made = method(name, **given)
    found = plan(made, sample)
    stored = apply(made, sample, found)
    for row in range(sample[0].keys.shape[0]):
        alone = [only_row(observation, row) for observation in sample]
        start = sample[0].keys.shape[2] - alone[0].keys.shape[2]
        layers = [
            tuple(x[0].double().numpy() for x in (o.queries, o.keys, o.values)) for o in alone
        ]
        kind = alone[0].kinds.kind[0].tolist()
        told = {"keep": made.budget.keep, **options}
        told |= {"sizes": SHARES} if "sizes" in options else {}
        expected = TWINS[name](layers, SimpleNamespace(kind=kind), sample[0].scaling, **told)
        positions, merged = expected if name in ("elastic", "lookm") else (expected, None)
        for number, (Q, K, _) in enumerate(layers):
            scores = worth(name, options, Q, K, kind, sample[0].scaling)
            ours = found.scores[number][row, :, start:]
            np.testing.assert_allclose(ours, scores, rtol=2e-5, atol=1e-7)
            for head, twin in enumerate(positions[number]):
                kept = (found.positions(number, row, head) - start).tolist()
                assert_kept(kept, twin, scores[head])
                if merged is not None and kept == twin:
                    keys, values = merged[number][head]
                    np.testing.assert_allclose(stored[number].keys(row, head), keys, atol=1e-5)
                    np.testing.assert_allclose(stored[number].values(row, head), values, atol=1e-5)


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_every_switch(name, options, table):
    sample = observations(kinds_of(*PROMPTS["padded batch"]), seed=1)
    assert_equals_reference(name, sample, options, table)


@pytest.mark.parametrize("heads", [(6, 2), (4, 4), (7, 1)], ids=str)
@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("name", TWINS)
def test_every_prompt(name, prompt, heads):
    Hq, H = heads
    sample = observations(kinds_of(*PROMPTS[prompt]), layers=3, Hq=Hq, H=H, seed=2)
    for options in ({"keep": 0.3}, {"keep": 0.3, "scope": "visual"}):
        assert_equals_reference(name, sample, options)


def structured(sample):
    """Return observations with a sink that gets most of the attention, and with repeated keys."""
    out = []
    for x in sample:
        keys, queries = x.keys.clone(), x.queries.clone()
        keys[:, :, 7::5] = keys[:, :, 7:8]
        keys[:, :, 0] = 4.0
        queries += 1.5
        out.append(Observation(queries, keys, x.values, x.kinds, x.scaling, x.layer))
    return out


@pytest.mark.parametrize("name", TWINS)
@pytest.mark.parametrize("sharpness", [0.0, 0.01, 1.0, 30.0])
def test_flat_and_peaked_attention(name, sharpness):
    sample = observations(kinds_of(ONE), layers=3, sharpness=sharpness, seed=3)
    for keep in (0.2, 0.8):
        assert_equals_reference(name, sample, {"keep": keep})
        # Equal rows and a sink: deviations are then 1e-4 of the mean, which float32 cannot tell.
        if name != "roco" or sharpness:
            assert_equals_reference(name, structured(sample), {"keep": keep})


def random_case(draw):
    """Return a made-up batch, a preset and a made-up choice of its switches."""
    length = draw.randint(6, 40)
    prompts = random_prompts(draw, length)
    name = draw.choice(list(TWINS))
    options = {}
    for option in (dict(x) for x in SWITCHES[name] if draw.random() < 0.3):
        options |= {k: v for k, v in option.items() if k not in ("keep", "sizes", "alpha2")}
    keep = draw.choice([0.03, 0.1, 0.3, 0.5, 0.9, 20])
    if "alpha1" in options:
        share = draw.random() * keep / 2
        options["alpha1"] = share if isinstance(keep, float) else int(share)
    return prompts, name, {**options, "keep": keep}


@pytest.mark.parametrize("seed", range(120))
def test_random_prompts_and_switches(seed):
    draw = random.Random(seed)
    prompts, name, options = random_case(draw)
    H, groups = draw.randint(1, 3), draw.randint(1, 3)
    if name == "elastic" and options.get("scope") == "visual":
        options["merge"] = draw.choice([True, False])
    sample = observations(
        kinds_of(*prompts),
        layers=draw.randint(1, 6),
        Hq=H * groups,
        H=H,
        seed=seed,
        sharpness=draw.choice([0.3, 2.0, 6.0]),
    )
    assert_equals_reference(name, sample, options)


@pytest.mark.parametrize("seed", range(40))
def test_level_of_mass_equals_the_loop(seed):
    draw = random.Random(seed)
    kinds = kinds_of("t" * 5 + "v" * draw.randint(1, 40) + "t" * draw.randint(1, 5))
    sample = observations(kinds, layers=draw.randint(1, 9), sharpness=draw.choice([0.1, 2.0, 9.0]))
    made = method("prefixkv", keep=draw.choice([0.05, 0.3, 0.6, 0.95]))
    found = plan(made, sample)
    mass = [scores[0, 0, 1:-1].double().tolist() for scores in found.scores]
    T = kinds.kind.shape[1]
    whole = max(0, round(made.budget.keep * T * len(sample)) - 2 * len(sample))
    counts = [int(explain["budget"][0, 0]) for explain in found.explain]
    if whole:
        assert counts == [2 + size for size in online_sizes(mass, whole)]

"""MixKV on its four hosts equals its plain loops."""

import random
from dataclasses import replace

import numpy as np
import pytest

from foveate.calibration.tables import save_table
from foveate.method import apply, plan
from foveate.methods import method
from reference.common import Row
from reference.mixkv import mixed, mixkv
from reference.window import look
from samples import kinds_of, observations, only_row, random_prompts

ONE = "stt" + "v" * 36 + "sttttts"
LONG = "t" * 60 + "v" * 20 + "t" * 45
PROMPTS = {
    "one image": ((ONE,), (((1, 6, 6),),)),
    "two images": (("t" + "v" * 13 + "ttt" + "v" * 17 + "tttttt",), ()),
    "question longer than the window": ((LONG,), ()),
    "text only": (("t" * 50,), ()),
    "no text behind": (("ttt" + "v" * 41,), ()),
    "one text token behind": (("tt" + "v" * 23 + "t",), ()),
    "video": (("tt" + "v" * 48 + "tttt",), (((4, 3, 4),),)),
    "short": (("tvt",), ()),
    "padded batch": (
        (
            "p" * 9 + "tt" + "v" * 13 + "ttttt" + "v" * 5 + "ttttt",
            "sttt" + "v" * 28 + "ttttttt",
            "p" * 35 + "vttt",
        ),
        (),
    ),
}
HOSTS = ("snapkv", "pyramidkv", "adakv", "sparsemm")
REDUNDANCY = [[0.1 * head - 0.03 * layer for head in range(4)] for layer in range(6)]
CELLS = [
    {"importance": "attention", "diversity": "none"},
    {"importance": "attention+knorm", "diversity": "none"},
    {"importance": "attention+vnorm", "diversity": "none"},
    {"importance": "none"},
    {"mix": "sum"},
    {"mix": "offline"},
    {},
]
SWITCHES = [
    *CELLS,
    *({"keep": keep} for keep in (0.02, 0.3, 0.77, 1.0, 33, 1000)),
    {"scope": "visual", "keep": 0.3},
    {"scope": "visual", "keep": 3, "mix": "half"},
    {"importance": "vnorm"},
    {"importance": "knorm", "scale": "paper"},
    {"importance": "attention"},
    {"scale": "paper"},
    {"scale": "paper", "mix": "sum", "importance": "attention+knorm"},
    {"scale": "paper", "importance": "none"},
    {"mix": "half", "scale": "paper", "window": 3},
    {"window": 4, "kernel": 3, "pooling": "max", "window_of": "any", "pool_over": "sequence"},
    {"pooling": "none", "window": 7, "keep": 0.5},
    {"pool_over": "spans", "window": 2},
]
OWN = {
    "snapkv": [{}],
    "pyramidkv": [{"beta": 3.0}, {"rounding": "official", "window": 4}],
    "adakv": [{"alpha": 0.0}, {"alpha": 1.0}, {"normalize": True, "window": 4, "keep": 0.5}],
    "sparsemm": [{"rho": 0.5}, {"redistribute": True, "window": 4, "keep": 0.6}],
}


def sample_of(prompt, **options):
    words, grids = PROMPTS[prompt] if isinstance(prompt, str) else prompt
    return observations(replace(kinds_of(*words), grids=grids), **options)


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Return where a table for so many layers and key-value heads is, written when asked for."""
    folder = tmp_path_factory.mktemp("tables")

    def path(layers, Hq, H):
        place = folder / f"{layers}-{Hq}-{H}.json"
        rows = [row[:H] for row in REDUNDANCY[:layers]]
        shape = {"layers": layers, "query_heads": Hq, "kv_heads": H, "redundancy": rows}
        save_table(place, {"format": "foveate-redundancy", "version": 1, "model": "m", **shape})
        return str(place)

    return path


def assert_equals_reference(sample, options, tables):
    Hq, H = sample[0].queries.shape[1], sample[0].keys.shape[1]
    options = dict(options)
    ours = dict(options)
    if options.get("mix") == "offline":
        ours["table"] = tables(len(sample), Hq, H)
        options["table"] = [row[:H] for row in REDUNDANCY]
    made = method("mixkv", **ours)
    found = plan(made, sample)
    stored = apply(made, sample, found)
    for row in range(sample[0].keys.shape[0]):
        alone = [only_row(observation, row) for observation in sample]
        start = sample[0].keys.shape[2] - alone[0].keys.shape[2]
        layers = [
            tuple(x[0].double().numpy() for x in (o.queries, o.keys, o.values)) for o in alone
        ]
        kinds = alone[0].kinds
        told = Row(
            kinds.kind[0].tolist(), kinds.span[0].tolist(), kinds.grids[0] if kinds.grids else ()
        )
        twin = mixkv(layers, told, sample[0].scaling, **{**options, "keep": made.budget.keep})
        expected = worth(layers, told, sample[0].scaling, options)
        for number, heads in enumerate(twin):
            for head, positions in enumerate(heads):
                scores, going = expected[number][head]
                mine = found.scores[number][row, head, start:].double().numpy()
                np.testing.assert_allclose(mine[going], scores[going], rtol=2e-5, atol=2e-7)
                kept = (found.positions(number, row, head) - start).tolist()
                assert_kept(kept, positions, scores)
                assert stored[number].positions(row, head).tolist() == [p + start for p in kept]


def worth(layers, row, scaling, options):
    """Return the reference's scores [N][H][T], and which positions may go."""
    window = ("window", "kernel", "pooling", "window_of", "pool_over")
    seen = look(
        layers,
        row,
        scaling,
        options.get("scope", "native"),
        **{name: options[name] for name in window if name in options},
    )
    going = seen.window.going
    defaults = {
        "importance": "attention+vnorm", "diversity": "keys", "mix": "head", "scale": "code",
    }  # fmt: skip
    how = [options.get(name, value) for name, value in defaults.items()]
    table = options.get("table")
    return [
        [
            (np.array(mixed(a[h], K[h], V[h], going, *how, table and table[number][h])), going)
            for h in range(len(K))
        ]
        for number, ((_, K, V), a) in enumerate(zip(layers, seen.scores, strict=True))
    ]


def assert_kept(found, expected, scores):
    """Assert that the positions are the same, but for tokens that are worth the same."""
    ours, theirs = sorted(set(found) - set(expected)), sorted(set(expected) - set(found))
    assert len(ours) == len(theirs), (found, expected)
    np.testing.assert_allclose(np.sort(scores[ours]), np.sort(scores[theirs]), rtol=1e-5)


@pytest.mark.parametrize("options", SWITCHES, ids=str)
@pytest.mark.parametrize("host", HOSTS)
def test_every_switch_on_every_host(host, options, tables):
    options = {"keep": 0.5, "host": host, "window": 5, **options}
    assert_equals_reference(sample_of("padded batch", layers=4, seed=1), options, tables)


@pytest.mark.parametrize(
    ("host", "options"), [(host, own) for host in HOSTS for own in OWN[host]], ids=str
)
def test_options_of_the_host(host, options, tables):
    for prompt in ("padded batch", "question longer than the window"):
        assert_equals_reference(
            sample_of(prompt, layers=3, seed=6), {"keep": 0.4, "host": host, **options}, tables
        )


@pytest.mark.parametrize("heads", [(6, 2), (4, 4), (7, 1)], ids=str)
@pytest.mark.parametrize("prompt", PROMPTS)
def test_every_prompt(prompt, heads, tables):
    Hq, H = heads
    for host, scope in (("snapkv", "native"), ("adakv", "visual")):
        assert_equals_reference(
            sample_of(prompt, layers=3, Hq=Hq, H=H, seed=2),
            {"host": host, "keep": 0.6, "scope": scope},
            tables,
        )


@pytest.mark.parametrize("sharpness", [0.0, 0.01, 1.0, 30.0])
def test_flat_and_peaked_and_repeated(sharpness, tables):
    sample = sample_of("one image", layers=3, sharpness=sharpness, seed=3)
    repeated = []
    for x in sample:
        keys = x.keys.clone()
        keys[:, :, 7::5] = keys[:, :, 7:8]
        keys[:, :, 0] = 4.0
        keys[:, 1, 5:20] = 0.0
        repeated.append(replace(x, keys=keys))
    for keep in (0.3, 0.8):
        for host in ("snapkv", "adakv"):
            assert_equals_reference(sample, {"keep": keep, "host": host}, tables)
            assert_equals_reference(repeated, {"keep": keep, "host": host}, tables)


@pytest.mark.parametrize("seed", range(60))
def test_random_prompts_and_switches(seed, tables):
    draw = random.Random(seed)
    length = draw.randint(3, 60)
    prompts = random_prompts(draw, length)
    host = draw.choice(HOSTS)
    options = {}
    for option in (x for x in [*SWITCHES, *OWN[host]] if draw.random() < 0.15):
        options |= option
    if options.get("importance") == "none":
        options.pop("diversity", None)
    keep = draw.choice([0.03, 0.1, 0.3, 0.5, 0.9, 40])
    options |= {"keep": keep, "host": host}
    H, groups = draw.randint(1, 3), draw.randint(1, 3)
    sample = sample_of(
        (prompts, ()),
        layers=draw.randint(1, 6),
        Hq=H * groups,
        H=H,
        seed=seed,
        sharpness=draw.choice([0.3, 2.0, 6.0]),
    )
    assert_equals_reference(sample, options, tables)

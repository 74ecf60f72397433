"""KNorm, the value norm, KeyDiff and Expected Attention equal their plain loops."""

import itertools
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from foveate.errors import InputError, MethodError
from foveate.method import apply, plan
from foveate.methods import method
from foveate.types import Observation, Rotation, TokenKinds
from reference.norms import expected, keydiff, knorm, vnorm
from samples import kinds_of, observations, only_row, random_prompts

TWINS = {twin.__name__: twin for twin in (knorm, vnorm, keydiff, expected)}
ONE = "stt" + "v" * 29 + "sttttts"
PROMPTS = {
    "one image": (ONE,),
    "two images": ("t" + "v" * 13 + "ttt" + "v" * 17 + "tttttt",),
    "text only": ("t" * 33,),
    "no text behind": ("ttt" + "v" * 41,),
    "one text token behind": ("tt" + "v" * 23 + "t",),
    "short": ("tvt",),
    "padded batch": (
        "p" * 9 + "tt" + "v" * 13 + "ttttt" + "v" * 5 + "ttttt",
        "sttt" + "v" * 28 + "ttttttt",
        "p" * 35 + "vttt",
    ),
}
KEEPS = [{"keep": keep} for keep in (0.02, 0.3, 0.77, 1.0, 15, 1000)]
VISUAL = [{"scope": "visual", "keep": keep} for keep in (0.01, 0.3, 5)]
SWITCHES = {
    "knorm": [{"skip_layers": 2, "keep": 0.3}, {"skip_layers": 5}, {"skip_layers": 9, "keep": 3}],
    "vnorm": [],
    "keydiff": [],
    "expected": [
        {"future": 1},
        {"future": 40, "covariance": False},
        {"values": False, "sinks": 0},
        {"epsilon": 0.02, "keep": 0.3},
        {"epsilon": 0.02, "values": False, "scope": "visual"},
        {"sinks": 9, "keep": 0.2},
        {"sinks": 9, "keep": 0.4, "scope": "visual"},
    ],
}
CASES = [
    (name, options) for name, own in SWITCHES.items() for options in ({}, *KEEPS, *VISUAL, *own)
]


def assert_equals_reference(name, sample, options):
    made = method(name, **options)
    found = plan(made, sample)
    stored = apply(made, sample, found)
    for row in range(sample[0].keys.shape[0]):
        alone = [only_row(observation, row) for observation in sample]
        start = sample[0].keys.shape[2] - alone[0].keys.shape[2]
        layers = [
            tuple(x[0].double().numpy() for x in (o.queries, o.keys, o.values)) for o in alone
        ]
        kind = SimpleNamespace(kind=alone[0].kinds.kind[0].tolist())
        told = {"keep": made.budget.keep, **options}
        if name == "expected":
            told["rotation"] = (sample[0].rotation.frequencies.double().numpy(),)
        twin = TWINS[name](layers, kind, sample[0].scaling, **told)
        for number, heads in enumerate(twin):
            scores = found.scores[number][row, :, start:].double().numpy()
            for head, positions in enumerate(heads):
                kept = (found.positions(number, row, head) - start).tolist()
                assert_kept(kept, positions, scores[head])
                assert stored[number].positions(row, head).tolist() == [p + start for p in kept]


def assert_kept(found, expected, scores):
    """Assert that the positions are the same, but for tokens that are worth the same."""
    ours, theirs = sorted(set(found) - set(expected)), sorted(set(expected) - set(found))
    assert len(ours) == len(theirs), (found, expected)
    np.testing.assert_allclose(np.sort(scores[ours]), np.sort(scores[theirs]), rtol=1e-5)


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_every_switch(name, options):
    sample = observations(kinds_of(*PROMPTS["padded batch"]), seed=1)
    assert_equals_reference(name, sample, options)


@pytest.mark.parametrize("heads", [(6, 2), (4, 4), (7, 1)], ids=str)
@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("name", TWINS)
def test_every_prompt(name, prompt, heads):
    Hq, H = heads
    sample = observations(kinds_of(*PROMPTS[prompt]), layers=3, Hq=Hq, H=H, seed=2)
    for options in ({"keep": 0.3}, {"keep": 0.3, "scope": "visual"}):
        assert_equals_reference(name, sample, options)


def changed(sample, **parts):
    """Return observations with some parts made anew by functions of the old ones."""
    names = ("queries", "keys", "values", "kinds", "scaling", "layer", "rows", "rotation")
    return [
        Observation(**{n: parts.get(n, lambda x: x)(getattr(x, n)) for n in names}) for x in sample
    ]


@pytest.mark.parametrize("name", TWINS)
@pytest.mark.parametrize("sharpness", [0.0, 0.01, 1.0, 30.0])
def test_flat_and_peaked_and_repeated(name, sharpness):
    sample = observations(kinds_of(ONE), layers=3, sharpness=sharpness, seed=3)

    def repeated(keys):
        keys = keys.clone()
        keys[:, :, 7::5] = keys[:, :, 7:8]
        keys[:, :, 0] = 4.0
        keys[:, :, 1] = 0.0
        return keys

    for keep in (0.2, 0.8):
        assert_equals_reference(name, sample, {"keep": keep})
        assert_equals_reference(name, changed(sample, keys=repeated), {"keep": keep})


@pytest.mark.parametrize("seed", range(60))
def test_random_prompts_and_switches(seed):
    draw = random.Random(seed)
    length = draw.randint(3, 40)
    prompts = random_prompts(draw, length)
    name = draw.choice(list(TWINS))
    options = {}
    for option in (x for x in SWITCHES[name] if draw.random() < 0.3):
        options |= option
    options["keep"] = draw.choice([0.03, 0.1, 0.3, 0.5, 0.9, 20])
    H, groups = draw.randint(1, 3), draw.randint(1, 3)
    sample = observations(
        kinds_of(*prompts),
        layers=draw.randint(1, 6),
        Hq=H * groups,
        H=H,
        D=draw.choice([2, 7, 8]),
        seed=seed,
        sharpness=draw.choice([0.3, 2.0, 6.0]),
    )
    frequencies = torch.rand(draw.randint(0, sample[0].keys.shape[-1] // 2))
    sample = changed(sample, rotation=lambda _: Rotation(frequencies))
    assert_equals_reference(name, sample, options)


def test_scores_of_expected_attention():
    sample = observations(kinds_of(ONE), layers=2, seed=5)
    row = SimpleNamespace(kind=sample[0].kinds.kind[0].tolist())
    made = method("expected", keep=0.3, future=7, values=False)
    ours = [plan(made, [x]).scores[0][0].double() for x in sample]
    # The reference gives sets alone: all of them together are the order of the scores.
    for layer, x in enumerate(sample):
        parts = tuple(y[0].double().numpy() for y in (x.queries, x.keys, x.values))
        order = [
            expected(
                [parts], row, x.scaling, keep=count, future=7, values=False,
                rotation=(x.rotation.frequencies.double().numpy(),),
            )[0]
            for count in range(5, len(row.kind) + 1)
        ]  # fmt: skip
        for head in range(2):
            assert ours[layer][head, 4:].sum() == pytest.approx(1, abs=1e-5)
            found = [next(iter(set(b[head]) - set(a[head]))) for a, b in itertools.pairwise(order)]
            values = ours[layer][head, found]
            assert (values.diff() <= 1e-7).all()


def grid(sample):
    """Return the observations as of a model whose images have positions in a grid."""
    return changed(sample, rotation=lambda r: Rotation(r.frequencies, grid=True))


def test_grid_positions_leave_images_and_what_is_before_them_unread():
    sample = grid(observations(kinds_of("sttt" + "v" * 17 + "ttttttt"), layers=2, seed=4))
    made = method("expected", keep=0.3)
    kept = plan(made, sample)

    def spoiled(queries):
        queries = queries.clone()
        queries[:, :, :21] = torch.nan
        return queries

    again = plan(made, changed(sample, queries=spoiled))
    assert all(torch.equal(a, b) for a, b in zip(kept.scores, again.scores, strict=True))
    assert not any(float(x["fallback"][0]) for x in kept.explain)
    # A text prompt has the same positions on all axes.
    text = observations(kinds_of("t" * 30), layers=2, seed=4)
    for a, b in zip(plan(made, text).scores, plan(made, grid(text)).scores, strict=True):
        assert torch.equal(a, b)


def test_grid_positions_read_the_question_as_a_prompt_of_its_own():
    sample = grid(observations(kinds_of("sttt" + "v" * 17 + "ttttttt"), Hq=2, layers=2, seed=4))
    lone = changed(
        sample,
        kinds=lambda k: TokenKinds.of(torch.where(torch.arange(28) < 21, -1, 0)[None]),
    )
    lone = [
        Observation(
            x.queries[:, :, 21:], y.keys, x.values, y.kinds, x.scaling, x.layer,
            torch.arange(21, 28)[None], y.rotation,
        )
        for x, y in zip(sample, lone, strict=True)
    ]  # fmt: skip
    wanted = plan(method("expected", keep=0.3, sinks=0, values=False), lone)
    found = plan(method("expected", keep=0.3, sinks=0, values=False), sample)
    for a, b in zip(wanted.scores, found.scores, strict=True):
        a, b = a[..., 21:], b[..., 21:]
        torch.testing.assert_close(a / a.sum(-1, True), b / b.sum(-1, True))


def test_grid_without_text_behind_is_read_as_at_the_end():
    sample = grid(observations(kinds_of("sttt" + "v" * 40), layers=2, seed=4))
    found = plan(method("expected", keep=0.3), sample)
    assert all(float(x["fallback"][0]) for x in found.explain)
    assert all(scores.isfinite().all() for scores in found.scores)


def test_shifted_positions_change_nothing():
    """All that counts is how far a row is from the end."""
    alone = observations(kinds_of(ONE), layers=2, seed=8)

    def padded(x):
        return torch.cat([torch.full_like(x[:, :, :11], torch.nan), x], 2)

    late = changed(
        alone,
        queries=padded,
        keys=padded,
        values=padded,
        kinds=lambda k: kinds_of("p" * 11 + ONE),
        rows=lambda r: torch.cat([torch.full_like(r[:, :11], -1), r + 11], 1),
    )
    made = method("expected", keep=0.3)
    for a, b in zip(plan(made, alone).scores, plan(made, late).scores, strict=True):
        torch.testing.assert_close(b[..., 11:], a)
        assert (b[..., :11] == 0).all()


@pytest.mark.parametrize(
    ("rotation", "message"),
    [
        (None, "nothing is known about the rotation; give Observation"),
        (Rotation(None), "layer 0 nothing is known"),
        (Rotation(torch.ones(5)), r"frequencies \(5,\) for queries of width 8"),
    ],
)
def test_rotation_must_be_known(rotation, message):
    sample = changed(observations(kinds_of(ONE)), rotation=lambda _: rotation)
    with pytest.raises(InputError, match=message):
        plan(method("expected"), sample)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (dict(name="knorm", skip_layers=-1), "skip_layers=-1 .*0 or more"),
        (dict(name="expected", future=0), "future=0 .*1 or more"),
        (dict(name="expected", sinks=9, keep=3), "keep=3 is less than the sinks, 9 tokens"),
        (dict(name="expected", epsilon=-0.1), "epsilon=-0.1"),
        (dict(name="expected", covariance=1), "covariance=1 .*True or False"),
    ],
    ids=str,
)
def test_errors_say_what_to_do(words, message):
    with pytest.raises(MethodError, match=message):
        method(**words)


@pytest.mark.parametrize("name", ["knorm", "vnorm", "keydiff"])
def test_heads_are_ranked_by_themselves(name):
    sample = observations(kinds_of(ONE), Hq=6, H=3, layers=2)
    turned = changed(
        sample,
        keys=lambda x: x[:, [2, 0, 1]],
        values=lambda x: x[:, [2, 0, 1]],
    )
    a, b = plan(method(name), sample), plan(method(name), turned)
    assert all(torch.equal(x[:, [2, 0, 1]], y) for x, y in zip(a.scores, b.scores, strict=True))


def test_keydiff_does_not_ask_how_long_keys_are():
    sample = observations(kinds_of(ONE), layers=2)
    lengths = torch.rand(len(ONE), 1) + 0.1
    scaled = changed(sample, keys=lambda x: x * lengths)
    a, b = plan(method("keydiff"), sample), plan(method("keydiff"), scaled)
    for x, y in zip(a.scores, b.scores, strict=True):
        torch.testing.assert_close(x, y)

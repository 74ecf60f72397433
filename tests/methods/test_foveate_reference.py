"""Foveate's own preset equals its plain loops."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from foveate.errors import MethodError
from foveate.method import plan
from foveate.methods import aircache, foveate
from reference.common import Row
from reference.foveate import foveate as twin
from reference.foveate import nearby
from samples import kinds_of, observations, only_row

PROMPTS = {
    "one image": (("stt" + "v" * 35 + "sttttts",), (((1, 5, 7),),)),
    "grid not known": (("stt" + "v" * 31 + "sttttts",), ()),
    "two images": (("t" + "v" * 12 + "ttt" + "v" * 16 + "tttttt",), (((1, 3, 4), (1, 2, 8)),)),
    "video": (("tt" + "v" * 36 + "tttt",), (((3, 3, 4),),)),
    "question longer than the window": (("t" * 9 + "v" * 20 + "t" * 45,), (((1, 4, 5),),)),
    "text only": (("t" * 20,), ()),
    "no text behind": (("ttt" + "v" * 41,), ()),
    "short": (("tvt",), (((1, 1, 1),),)),
    "padded batch": (
        (
            "p" * 9 + "tt" + "v" * 12 + "ttttt" + "v" * 6 + "ttttt",
            "sttt" + "v" * 28 + "ttttttt",
            "p" * 25 + "v" * 4 + "tttttttttt",
        ),
        (((1, 3, 4), (1, 2, 3)), ((2, 2, 7),), ((1, 2, 2),)),
    ),
}
SWITCHES = [
    *({"keep": keep} for keep in (0.01, 0.02, 0.5, 0.99, 1, 7, 1000)),
    {"scope": "unified"},
    {"fade": 0.0},
    {"fade": 1.0, "window": 3},
    {"before": 0, "after": 0},
    {"before": 5, "after": 1, "far": 1.0},
    {"before": 100, "after": 0, "far": 0.0},
    {"values": 0.0},
    {"values": 100.0, "alpha": 0.0},
    {"alpha": 1.0},
    {"window": 1},
]


def told_of(kinds):
    """The kinds of a row without padding, as plain loops read them."""
    grids = kinds.grids[0] if kinds.grids else ()
    return Row(kinds.kind[0].tolist(), kinds.span[0].tolist(), grids)


def check(prompt, options, **shape):
    words, grids = PROMPTS[prompt]
    sample = observations(replace(kinds_of(*words), grids=grids), **shape)
    options = {"keep": 0.2, **options}
    found = plan(foveate(**options), sample)
    for row in range(len(words)):
        alone = [only_row(x, row) for x in sample]
        start = sample[0].keys.shape[2] - alone[0].keys.shape[2]
        layers = [
            tuple(x[0].double().numpy() for x in (o.queries, o.keys, o.values)) for o in alone
        ]
        told = told_of(alone[0].kinds)
        expected, scores = twin(layers, told, sample[0].scaling, **options)
        visual = np.array(told.kind) == 1
        for number, heads in enumerate(expected):
            mine = found.scores[number][row, :, start:].double().numpy()
            np.testing.assert_allclose(
                mine[:, visual], scores[number][:, visual], rtol=2e-5, atol=1e-8
            )
            for head, positions in enumerate(heads):
                kept = (found.positions(number, row, head) - start).tolist()
                ours, theirs = (
                    sorted(set(kept) - set(positions)),
                    sorted(set(positions) - set(kept)),
                )
                assert len(ours) == len(theirs), (kept, positions)
                np.testing.assert_allclose(
                    np.sort(scores[number][head][ours]),
                    np.sort(scores[number][head][theirs]),
                    rtol=1e-5,
                )


@pytest.mark.parametrize("options", SWITCHES, ids=str)
def test_every_switch(options):
    check("padded batch", options, layers=4, seed=1)


@pytest.mark.parametrize("heads", [(6, 2), (4, 4), (7, 1)], ids=str)
@pytest.mark.parametrize("prompt", PROMPTS)
def test_every_prompt(prompt, heads):
    check(prompt, {}, layers=3, Hq=heads[0], H=heads[1], seed=2)


@pytest.mark.parametrize("sharpness", [0.0, 0.1, 20.0])
def test_flat_and_peaked(sharpness):
    check("one image", {"keep": 0.3}, layers=3, sharpness=sharpness, seed=3)


def test_a_head_that_looks_sharply_gets_more():
    kinds = replace(kinds_of("t" + "v" * 36 + "tt"), grids=(((1, 6, 6),),))
    flat, sharp = observations(kinds, layers=2, Hq=2, H=2)
    flat = replace(flat, queries=torch.zeros_like(flat.queries))
    queries, keys = torch.zeros_like(sharp.queries), sharp.keys.clone()
    keys[:, 1, 14] *= 10  # the token in row 2, column 1
    queries[:, 1] = keys[:, 1, 14:15]
    sharp = replace(sharp, queries=queries, keys=keys)
    keep = plan(foveate(0.1, values=0.0), [flat, sharp]).keep
    counts = [[int((head & kinds.visual[0]).sum()) for head in layer[0]] for layer in keep]
    assert counts[1][1] > 10 > counts[0][0]
    assert {13, 14, 15, 16, 17, 18} <= set(keep[1][0, 1].nonzero().flatten().tolist())


def test_bad_options():
    for options, message in (
        ({"fade": 1.5}, "fade=1.5 .*from 0 to 1"),
        ({"after": -1}, "after=-1 .*0 or more"),
        ({"far": "much"}, "far='much'"),
        ({"values": -1.0}, "of at least 0"),
        ({"alpha": 2}, "alpha=2"),
        ({"window": 0}, "window=0 .*1 or more"),
        ({"scope": "text"}, "scope='text'"),
        ({"keep": 0}, "keeps nothing"),
    ):
        with pytest.raises(MethodError, match=message):
            foveate(**options)


@pytest.mark.parametrize("prompt", [name for name in PROMPTS if name != "text only"])
def test_aircache_with_neighbours_has_the_same_budgets_and_worth_handed_on(prompt):
    words, grids = PROMPTS[prompt]
    sample = observations(replace(kinds_of(*words), grids=grids), layers=3)
    own, line = aircache(keep=0.3), aircache(keep=0.3, neighbours="line")
    visual = sample[0].kinds.visual
    for alone, beside in zip(plan(own, sample).keep, plan(line, sample).keep, strict=True):
        assert torch.equal(alone.sum(-1), beside.sum(-1))
    for layer in sample:
        plain, handed = own.rank(layer), line.rank(layer)
        assert all(torch.equal(plain.stats[name], handed.stats[name]) for name in plain.stats)
        for row in range(len(words)):
            pads = int((~layer.kinds.valid[row]).sum())
            told = told_of(only_row(layer, row).kinds)
            expected = nearby(
                plain.scores[row, 0, pads:].tolist(), told, before=2, after=5, far=0.3
            )
            there = visual[row, pads:]
            found = handed.scores[row, 0, pads:][there].double()
            torch.testing.assert_close(found, torch.tensor(expected).double()[there])

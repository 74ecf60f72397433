"""InfiniPot-V equals its plain loops, and its parts what they say."""

import random
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from foveate.errors import InputError, MethodError
from foveate.method import apply, plan
from foveate.methods import method
from foveate.score.patches import averaged
from foveate.score.video import frames
from foveate.types import TokenKinds
from reference.infinipotv import infinipotv
from samples import kinds_of, observations, only_row

VIDEO = "tt" + "v" * 48 + "tttt"
PROMPTS = {
    "video": ((VIDEO,), (((8, 2, 3),),)),
    "video of two frames": ((VIDEO,), (((2, 4, 6),),)),
    "video of one frame": ((VIDEO,), (((1, 6, 8),),)),
    "video of unknown grid": ((VIDEO,), ()),
    "grid that does not fit": ((VIDEO,), (((8, 2, 2),),)),
    "images of the same size": (("tt" + ("v" * 6 + "tt") * 7 + "ttt",), (((1, 2, 3),) * 7,)),
    "images of unknown grids": (("tt" + ("v" * 6 + "tt") * 7 + "ttt",), ()),
    "images of different sizes": (("t" + "v" * 13 + "ttt" + "v" * 17 + "tttttt",), ()),
    "two videos": (("t" + "v" * 24 + "t" + "v" * 12 + "tt",), (((4, 2, 3), (2, 2, 3)),)),
    "text only": (("t" * 33,), ()),
    "no text": (("v" * 40,), (((10, 2, 2),),)),
    "short": (("tvt",), ()),
    "padded batch": (
        ("p" * 9 + "tt" + "v" * 12 + "t" + "v" * 18 + "tttttt", "tt" + "v" * 42 + "tttt"),
        (((4, 3, 1), (6, 1, 3)), ((2, 3, 7),)),
    ),
    "padded batch of frames": (
        ("p" * 9 + "tt" + "vvvt" * 8 + "ttttt", "vvt" * 16, "p" * 46 + "vt", "p" * 30 + "tv" * 9),
        (),
    ),
}
CASES = [
    {},
    *({"keep": keep} for keep in (0.02, 0.1, 0.33, 0.77, 1.0, 1, 9, 1000)),
    {"scope": "visual", "keep": 0.3},
    {"alpha": 0.0},
    {"alpha": 1.0, "keep": 0.4},
    {"alpha": 0.3, "recent": 0.7, "keep": 0.5},
    {"recent": 0.0, "keep": 0.5},
    {"recent": 1.0, "alpha": 0.9, "keep": 0.6},
    {"pooling": "adaptive"},
    {"pooling": "adaptive", "alpha": 0.1, "keep": 0.5},
]


def sample_of(prompt, **options):
    words, grids = PROMPTS[prompt] if isinstance(prompt, str) else prompt
    return observations(replace(kinds_of(*words), grids=grids), **options)


def assert_equals_reference(sample, options):
    made = method("infinipotv", **options)
    found = plan(made, sample)
    stored = apply(made, sample, found)
    for row in range(sample[0].keys.shape[0]):
        alone = [only_row(observation, row) for observation in sample]
        start = sample[0].keys.shape[2] - alone[0].keys.shape[2]
        layers = [
            tuple(x[0].double().numpy() for x in (o.queries, o.keys, o.values)) for o in alone
        ]
        kinds = alone[0].kinds
        told = SimpleNamespace(
            kind=kinds.kind[0].tolist(),
            span=kinds.span[0].tolist(),
            grids=kinds.grids[0] if kinds.grids else (),
        )
        twin = infinipotv(layers, told, sample[0].scaling, **{"keep": made.budget.keep, **options})
        for number, heads in enumerate(twin):
            for head, positions in enumerate(heads):
                kept = (found.positions(number, row, head) - start).tolist()
                assert kept == positions, (number, head)
                assert stored[number].positions(row, head).tolist() == [p + start for p in kept]


@pytest.mark.parametrize("options", CASES, ids=str)
@pytest.mark.parametrize("prompt", PROMPTS)
def test_every_switch_on_every_prompt(prompt, options):
    assert_equals_reference(sample_of(prompt, layers=4, seed=1), options)


@pytest.mark.parametrize("heads", [(4, 4), (7, 1)], ids=str)
@pytest.mark.parametrize("layers", [1, 2, 3, 5, 9])
def test_quarters_of_any_number_of_layers(layers, heads):
    sample = sample_of("padded batch", layers=layers, Hq=heads[0], H=heads[1], seed=2)
    assert_equals_reference(sample, {"pooling": "adaptive", "keep": 0.4})


@pytest.mark.parametrize("seed", range(60))
def test_random_videos_and_switches(seed):
    draw = random.Random(seed)
    height, width = draw.randint(1, 4), draw.randint(1, 4)
    grid, prompt = [], "t" * draw.randint(0, 3)
    for _ in range(draw.randint(1, 4)):
        grid.append((draw.randint(1, 5), height, draw.choice([width, width, width + 1])))
        prompt += "v" * int(np.prod(grid[-1])) + "t" * draw.randint(1, 3)
    lone = "p" * (len(prompt) - 5) + "tvvvt"
    words = [prompt, lone[-len(prompt) :]] if len(prompt) > 5 else [prompt]
    grids = (tuple(grid), ())[: len(words)]
    options = {}
    for option in (x for x in CASES if draw.random() < 0.3):
        options |= option
    options["keep"] = draw.choice([0.03, 0.1, 0.3, 0.5, 0.9, 20])
    sample = sample_of((words, grids), layers=draw.randint(1, 6), seed=seed)
    assert_equals_reference(sample, options)


def test_what_stands_still_goes():
    """Of a video in which one patch changes, that patch stays."""
    sample = sample_of("video", layers=1)
    video = torch.randn(1, 2, 1, 6, 8).expand(1, 2, 8, 6, 8).clone()
    video[:, :, :, 4] = torch.randn(1, 2, 8, 8)
    keys = sample[0].keys.clone()
    keys[:, :, 2:50] = video.flatten(2, 3)
    found = plan(
        method("infinipotv", keep=12, alpha=1.0, recent=0.0), [replace(sample[0], keys=keys)]
    )
    kept = found.positions(0, 0, 0) - 2
    kept = kept[(kept >= 0) & (kept < 48)].tolist()
    assert set(range(42, 48)) < set(kept)  # the last frame
    assert sum(place % 6 == 4 for place in kept if place < 42) >= 5


def test_frames_and_patches():
    kinds = replace(kinds_of("tvvvvvvtvvvt"), grids=(((2, 1, 3), (1, 1, 3)),))
    frame, patch, count = frames(kinds)
    assert frame[0, kinds.visual[0]].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert patch[0, kinds.visual[0]].tolist() == [0, 1, 2] * 3
    assert count.tolist() == [3]
    later = replace(kinds, span=torch.where(kinds.visual, kinds.span + 5, -1), grids=())
    assert frames(later)[2].tolist() == [0]
    assert frames(kinds.columns(7, 12))[2].tolist() == [1]


def test_averages_are_those_of_torch():
    grid = (4, 5, 6)
    kinds = TokenKinds.of(torch.ones(1, 120, dtype=torch.bool))
    kinds = replace(kinds, grids=((grid,),))
    x = torch.rand(1, 3, 120)
    box = torch.nn.functional.avg_pool3d(x.view(3, 1, *grid), 3, 1, 1)
    torch.testing.assert_close(averaged(x, kinds, 7, (0, 1, 2)), box.view(1, 3, 120))
    plane = torch.nn.functional.avg_pool2d(x.view(12, 1, 5, 6), 5, 1, 2)
    torch.testing.assert_close(averaged(x, kinds, 5, (1, 2)), plane.view(1, 3, 120))
    line = torch.nn.functional.avg_pool1d(x, 3, 1, 1)
    torch.testing.assert_close(averaged(x, kinds, 3, ()), line)


def test_adaptive_pooling_needs_the_number_of_layers():
    sample = [replace(x, layers=None) for x in sample_of("video")]
    plan(method("infinipotv"), sample)
    with pytest.raises(InputError, match=r"layers=N.*pooling='none'"):
        plan(method("infinipotv", pooling="adaptive"), sample)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (dict(alpha=1.5), "alpha=1.5 .*from 0 to 1"),
        (dict(recent=-1), "recent=-1 .*from 0 to 1"),
        (dict(pooling="max"), "pooling='max'.*'adaptive'"),
    ],
    ids=str,
)
def test_errors_say_what_to_do(words, message):
    with pytest.raises(MethodError, match=message):
        method("infinipotv", **words)

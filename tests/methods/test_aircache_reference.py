"""AirCache equals the plain loops of `reference/aircache.py`, with every switch."""

import random

import pytest
import torch

from foveate.method import plan
from foveate.methods import aircache, methods
from reference.aircache import Options
from reference.aircache import aircache as reference
from samples import kinds_of, observations, only_row

ONE = "stt" + "v" * 29 + "sttttts"
PROMPTS = {
    "one image": (ONE,),
    "two images": ("t" + "v" * 13 + "ttt" + "v" * 17 + "tttttt",),
    "three images, one tiny": ("t" + "v" * 11 + "t" + "v" * 2 + "t" + "v" * 19 + "tttts",),
    "video, text between frames": ("tt" + ("v" * 6 + "tt") * 5 + "ttt",),
    "one text token behind": ("tt" + "v" * 23 + "t",),
    "padded batch": (
        "p" * 9 + "tt" + "v" * 13 + "ttttt" + "v" * 5 + "ttttt",
        "sttt" + "v" * 28 + "ttttttt",
        "p" * 25 + "v" * 3 + "ttttttttttt",
    ),
    "no text behind": ("ttt" + "v" * 41,),
    "two visual tokens": ("tt" + "vv" + "tttttt",),
}
SWITCHES = [
    {},
    {"keep": 0.01},
    {"keep": 0.5},
    {"keep": 1.0},
    {"keep": 4},
    {"keep": 1000},
    {"alpha": 0.0},
    {"alpha": 0.6},
    {"alpha": 1.0},
    {"window": "contiguous", "window_rows": 3},
    {"window": "all_text"},
    {"window": "last_visual", "window_rows": 5},
    {"window_heads": "per_head", "alpha": 0.5},
    {"window_heads": "per_kv_group", "alpha": 0.5},
    {"window_heads": "concat_logits", "alpha": 0.5},
    {"text": "after_first_visual", "window": "all_text"},
    {"text": "all_text", "window": "all_text"},
    {"text": "all_text_but_sink", "alpha": 0.4},
    {"text": "after_first_visual", "alpha": 0.4},
    {"exclude_special": True, "alpha": 0.4},
    {"softmax": "full", "alpha": 0.5},
    {"softmax": "full", "heads": "per_kv_head", "keep": 0.3},
    {"heads": "per_kv_head", "keep": 0.3},
    {"heads": "per_kv_head", "window_heads": "per_head", "alpha": 0.3, "keep": 0.3},
    {"budget": "strength", "keep": 0.3},
    {"budget": "skewness", "keep": 0.3},
    {"budget": "uniform", "keep": 0.17},
    {"budget": "pyramid", "keep": 0.3},
    {"budget": "pyramid", "keep": 0.8, "beta": 2.0},
    {"norm": "minmax", "keep": 0.3, "k_min": 0},
    {"norm": "softmax_z", "keep": 0.6},
    {"k_min": 0, "keep": 0.03},
    {"k_min": 3, "keep": 0.2},
    {"overflow": "clip_only", "norm": "softmax_z", "keep": 0.7},
    {"skew_space": "log", "keep": 0.3},
    {"skew_space": "log", "negative_skew": "shift_min", "keep": 0.3},
    {"ties": "spread", "keep": 0.3},
    {"per_image_floor": 2, "keep": 0.2},
    {"per_image_floor": 3, "heads": "per_kv_head", "keep": 0.5},
    {"scope": "unified", "keep": 0.3},
    {"scope": "unified", "heads": "per_kv_head", "softmax": "full", "keep": 0.2},
]


def assert_equals_reference(sample, options):
    found = plan(aircache(**options), sample)
    for row in range(sample[0].keys.shape[0]):
        alone = [only_row(observation, row) for observation in sample]
        kinds = alone[0].kinds
        start = sample[0].keys.shape[2] - kinds.kind.shape[1]
        expected = reference(
            [(x.queries[0].double().numpy(), x.keys[0].double().numpy()) for x in alone],
            *(x[0].tolist() for x in (kinds.kind, kinds.special, kinds.span)),
            sample[0].scaling,
            Options(**options),
        )
        for number, layer in enumerate(expected):
            stats = {name: value[row] for name, value in found.explain[number].items()}
            sizes = [len(window) for window in layer.windows]
            assert float(stats["window"]) == pytest.approx(sum(sizes) / len(sizes))
            assert bool(stats["fallback"]) == layer.fallback
            assert float(stats["strength"]) == pytest.approx(layer.strength, rel=1e-4)
            assert float(stats["skewness"]) == pytest.approx(layer.skewness, rel=1e-3, abs=1e-4)
            for head, positions in enumerate(layer.kept):
                assert stats["budget"][head] == layer.budget
                assert (found.positions(number, row, head) - start).tolist() == positions
                worth = torch.from_numpy(layer.importance[head])
                may_go = worth > 0  # elsewhere scores mean nothing
                torch.testing.assert_close(
                    found.scores[number][row, head, start:].double()[may_go],
                    worth[may_go],
                    rtol=1e-4,
                    atol=1e-6,
                )


@pytest.mark.parametrize("options", SWITCHES, ids=str)
def test_every_switch(options):
    kinds = kinds_of(*PROMPTS["padded batch"])
    assert_equals_reference(observations(kinds, seed=1), options)


@pytest.mark.parametrize("heads", [(6, 2), (4, 4), (7, 1)], ids=str)
@pytest.mark.parametrize("prompt", PROMPTS)
def test_every_prompt(prompt, heads):
    Hq, H = heads
    sample = observations(kinds_of(*PROMPTS[prompt]), Hq=Hq, H=H, seed=2)
    assert_equals_reference(sample, {"keep": 0.3, "alpha": 0.5})


@pytest.mark.parametrize("sharpness", [0.0, 0.01, 1.0, 30.0])
def test_flat_and_peaked_attention(sharpness):
    sample = observations(kinds_of(ONE), sharpness=sharpness, seed=3)
    assert_equals_reference(sample, {"keep": 0.2})


def random_case(draw):
    """Return a made-up batch and a made-up choice of switches."""
    length = draw.randint(6, 40)
    prompts = []
    while len(prompts) < draw.randint(1, 3):
        prompt = "p" * draw.randint(0, length - 4)
        while len(prompt) < length:
            prompt += draw.choice(["t", "tt", "s", "v" * draw.randint(1, 9)])
        if "v" in prompt[:length]:
            prompts.append(prompt[:length])
    words = {
        option.name: [eval(word) for word in option.allowed]
        for info in methods()
        for option in info.options
        if info.name == "aircache" and option.name in Options.__annotations__
        if option.allowed[0].startswith("'")
    }
    options = {name: draw.choice(some) for name, some in words.items() if draw.random() < 0.4}
    options |= {
        "keep": draw.choice([0.01, 0.1, 0.3, 0.5, 0.9, 1.0, 1, 3, 9]),
        "alpha": draw.random(),
        "k_min": draw.randint(0, 2),
        "window_rows": draw.randint(1, 9),
        "exclude_special": draw.random() < 0.4,
        "per_image_floor": draw.choice([0, 0, 1, 3]),
    }
    return prompts, options


@pytest.mark.parametrize("seed", range(60))
def test_random_prompts_and_switches(seed):
    draw = random.Random(seed)
    prompts, options = random_case(draw)
    H, groups = draw.randint(1, 3), draw.randint(1, 3)
    sample = observations(
        kinds_of(*prompts),
        layers=draw.randint(1, 6),
        Hq=H * groups,
        H=H,
        seed=seed,
        sharpness=draw.choice([0.3, 2.0, 6.0]),
    )
    assert_equals_reference(sample, options)

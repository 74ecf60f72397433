"""keep=1.0 keeps everything, whatever a budget's rounding would make of it."""

import pytest
import torch

from foveate.method import plan
from foveate.methods import method, methods
from samples import kinds_of, observations

OFFICIAL = [("adakv", {"rounding": "official"}), ("pyramidkv", {"rounding": "official"})]
PLAIN = [(info.name, {}) for info in methods() if info.name != "expected"]


@pytest.mark.parametrize(("name", "options"), [*PLAIN, *OFFICIAL, ("mixkv+adakv", {})], ids=str)
@pytest.mark.parametrize("scope", ["native", "visual"])
def test_everything_is_everything(name, options, scope):
    sample = observations(kinds_of("pp s" + "v" * 33 + "t" * 7, "st" + "v" * 34 + "t" * 7))
    found = plan(method(name, keep=1.0, scope=scope, **options), sample)
    for keep in found.keep:
        assert torch.equal(keep, sample[0].kinds.valid[:, None].expand_as(keep))


HUGE = 10**30
LARGE = [
    ("snapkv", {"window": HUGE}),
    ("h2o", {"keep": HUGE}),
    ("streaming", {"sinks": HUGE}),
    ("roco", {"newest": HUGE}),
    ("expected", {"sinks": HUGE}),
    ("aircache", {"window": "contiguous", "window_rows": HUGE}),
    ("aircache", {"per_image_floor": HUGE}),
    ("snapkv", {"kernel": HUGE + 1, "pool_over": "sequence"}),
]


@pytest.mark.parametrize(("name", "options"), LARGE, ids=str)
def test_numbers_beyond_any_prompt_are_all_of_it(name, options):
    sample = observations(kinds_of("pp s" + "v" * 9 + "t" * 7, "st" + "v" * 10 + "t" * 7))
    prompt = len(sample[0].kinds.kind[0])
    odd = prompt * 2 + 1
    small = {k: v if v != HUGE and v != HUGE + 1 else odd for k, v in options.items()}
    found, other = (plan(method(name, **given), sample) for given in (options, small))
    for keep, expected in zip(found.keep, other.keep, strict=True):
        assert torch.equal(keep, expected) and keep.any()

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

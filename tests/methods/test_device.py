"""An accelerator plans and stores what the processor does."""

from dataclasses import replace

import pytest
import torch

from foveate.method import apply, plan
from foveate.methods import aircache, random, recency
from foveate.methods import method as named
from samples import kinds_of, observations

METHODS = [
    aircache(0.3),
    aircache(0.3, heads="per_kv_head", window_heads="per_head", per_image_floor=2, ties="spread"),
    aircache(0.3, window_heads="concat_logits", budget="pyramid", merge=0.5, merge_nearest="key"),
    aircache(0.3, window="all_text", norm="softmax_z", overflow="clip_only", merge=1.0),
    random(0.3),
    recency(7),
    named("snapkv", 0.3, window=3),
    named("snapkv", 0.3, window=3, pooling="max", pool_over="sequence", window_of="any"),
    named("pyramidkv", 0.3, window=3, rounding="official"),
    named("adakv", 0.3, window=3, normalize=True),
    named("sparsemm", 0.3, window=3, table="random", redistribute=True),
    named("vlcache", 0.3),
    named("cake", 0.3, window=3),
    named("knorm", 0.3, skip_layers=1),
    named("vnorm", 0.3),
    named("keydiff", 0.3),
    named("expected", 0.3),
    named("foveate", 0.3),
    named("infinipotv", 0.3, pooling="adaptive"),
    named("mixkv", 0.3, window=3),
    named("mixkv+adakv", 0.3, window=3, scale="paper"),
]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no accelerator")
@pytest.mark.parametrize("method", METHODS, ids=lambda method: str(method.score))
def test_same_plan_and_entries(method):
    here = observations(kinds_of("pp ttt vvvvvvvvvv ttt", "tt vvvvvvvvvvvvv t st"))
    there = [
        replace(
            x,
            queries=x.queries.cuda(),
            keys=x.keys.cuda(),
            values=x.values.cuda(),
            kinds=x.kinds.to(torch.device("cuda")),
            rows=x.rows.cuda(),
        )
        for x in here
    ]
    expected, found = plan(method, here), plan(method, there)
    for a, b in zip(expected.keep, found.keep, strict=True):
        assert b.is_cuda and torch.equal(a, b.cpu())
    for a, b in zip(apply(method, here, expected), apply(method, there, found), strict=True):
        torch.testing.assert_close(a.packed_keys, b.packed_keys.cpu(), rtol=1e-4, atol=1e-5)
        assert torch.equal(a.packed_positions, b.packed_positions.cpu())

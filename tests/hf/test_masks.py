"""The mask over slots equals its definition, slot by slot."""

import pytest
import torch

from foveate.hf.attention import slot_mask
from reference.cache import slot_mask as slow

B, T, L = 2, 13, 7


def layout(heads, seed=0):
    """Ascending positions, empty slots anywhere before the last two."""
    rng = torch.Generator().manual_seed(seed)
    logical = torch.rand(B, heads, T - 2, generator=rng).argsort(-1)[..., : L - 2].sort(-1).values
    logical[torch.rand(logical.shape, generator=rng) < 0.3] = -1
    tail = torch.tensor([T - 2, T - 1]).expand(B, heads, 2)
    return torch.cat([logical, tail], -1)


def masks(queries):
    causal = torch.ones(T, T, dtype=torch.bool).tril()[T - queries :]
    padding = torch.ones(B, T, dtype=torch.long)
    padding[0, :4] = padding[1, 6] = 0
    whole = causal[None, None] & padding[:, None, None].bool()
    return {"none": None, "padding": padding, "whole": whole, "one row": causal[None, None]}


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("queries", [1, 2])
@pytest.mark.parametrize("kind", ["none", "padding", "whole", "one row"])
@pytest.mark.parametrize("eager", [False, True])
def test_mask_over_slots(heads, queries, kind, eager):
    logical, query = layout(heads), torch.zeros(B, 6, queries, 4)
    mask = masks(queries)[kind]
    expected = slow(mask, logical, 6, queries, T - queries)
    given = mask
    if eager and mask is not None and mask.ndim == 4:
        given = torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)
    found = slot_mask(given, logical, query, start=T - queries, eager=eager)
    assert found.shape[1] in (1, 6)
    seen = found == 0 if eager else found
    assert torch.equal(seen.expand_as(expected), expected)

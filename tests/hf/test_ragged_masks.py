"""What a mask adds to the logits of prefix and tail equals its definition, token by token."""

import pytest
import torch

from foveate.cache.dense import Dense
from foveate.cache.ragged import Ragged
from foveate.hf.ragged import bias_of_prefix, bias_of_tail
from foveate.reduce.evict import pack
from reference.cache import slot_mask, tokens

B, H, HEADS = 3, 3, 6  # rows, key-value heads and query heads


def stored(tail, seed=0):
    """Ten tokens packed, each head its own and one of them nothing, then a tail."""
    rng = torch.Generator().manual_seed(seed)
    store = Dense()
    store.append(*tokens(B, 10, rng))
    keep = torch.rand(B, H, 10, generator=rng) < 0.5
    keep[1, 2] = False
    made = Ragged.of(store)
    made.pack(pack(*store.tail(10), keep), 10)
    made.append(*tokens(B, tail, rng))
    return made


def masks(T, queries):
    """Masks of every kind over T logical positions; hidden tokens lie in prefix and tail."""
    causal = torch.ones(T, T, dtype=torch.bool).tril()[T - queries :]
    padding = torch.ones(B, T, dtype=torch.long)
    padding[0, :4] = padding[1, 6] = padding[2, 11] = 0
    whole = causal[None, None] & padding[:, None, None].bool()
    return {"none": None, "padding": padding, "whole": whole, "one row": causal[None, None]}


@pytest.mark.parametrize("queries", [1, 4])
@pytest.mark.parametrize("kind", ["none", "padding", "whole", "one row"])
@pytest.mark.parametrize("floats", [False, True])
def test_biases_are_the_mask_over_slots(queries, kind, floats):
    store = stored(5)
    T, query = store.seen, torch.zeros(B, HEADS, queries, 5)
    given = mask = masks(T, queries)[kind]
    expected = slot_mask(mask, store.logical(), HEADS, queries, T - queries)
    if floats and mask is not None and mask.ndim == 4:
        given = torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)
    P = store.prefix.longest
    prefix = torch.zeros(queries, len(store.prefix.keys))
    if given is not None:
        prefix = bias_of_prefix(given, store.prefix, query)
    assert prefix.shape == (queries, len(store.prefix.keys))
    tail = bias_of_tail(given, query, store.base, store.seen)
    assert tail.shape == (B, 1, queries, 5)
    slots = store.prefix.slots()
    for b in range(B):
        for h in range(HEADS):
            own = slots[b, h // (HEADS // H)]
            seen = prefix[:, own.clamp(min=0)] == 0
            assert torch.equal(seen & (own >= 0), expected[b, h, :, :P])
            assert torch.equal(tail[b, 0] == 0, expected[b, h, :, P:])
    hidden = torch.cat([prefix.flatten(), tail.flatten()])
    assert (hidden[hidden != 0] <= torch.finfo(torch.float32).min).all()

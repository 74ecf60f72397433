"""Dense storage equals lists of entries, whatever happens to it, and its bytes are what it says."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foveate.cache.dense import Dense
from foveate.errors import CacheError
from foveate.reduce import Evict
from foveate.types import Observation
from reference.cache import D, Entries, H, check, tokens

ACTIONS = st.lists(
    st.tuples(st.sampled_from(["append", "pack", "seal", "crop", "take"]), st.integers(0, 9999)),
    max_size=9,
)


def pack(store, twin, rng, shared):
    """Keep a random part of the tail: the same for all heads, or each head its own."""
    stop = int(torch.randint(store.start, store.seen + 1, (), generator=rng))
    keys, values = store.tail(stop)
    B, _, T, _ = keys.shape
    keep = torch.rand(B, 1 if shared else H, T, generator=rng) < 0.4
    keep = keep.expand(B, H, T)
    observation = Observation(
        keys.new_zeros(B, H, 0, D), keys, values, torch.zeros(B, T, dtype=torch.long), 1.0, 0
    )
    store.pack(Evict()(observation, torch.zeros(B, H, T), keep), stop)
    twin.pack(keep, stop)


@settings(max_examples=120, deadline=None)
@given(actions=ACTIONS, seed=st.integers(0, 2**31))
def test_any_history_equals_lists(actions, seed):
    rng = torch.Generator().manual_seed(seed)
    store, rows = Dense(), 2
    twin = Entries(rows, H)
    for action, number in [("append", 6), *actions]:
        if action == "append":
            new = tokens(rows, 1 + number % 5, rng)
            store.append(*new)
            twin.append(*new)
        elif action == "pack":
            pack(store, twin, rng, shared=number % 2 == 0)
        elif action == "seal":
            store.seal(store.seen)
            twin.start = twin.seen
        elif action == "crop":
            length = number % (store.seen + 2)
            store.crop(length)
            twin.crop(length)
        elif action == "take":
            chosen = torch.randint(0, rows, (1 + number % 3,), generator=rng)
            store.take(chosen)
            twin.take(chosen.tolist())
            rows = len(chosen)
        check(store, twin)


def test_heads_that_agree_share_positions():
    rng = torch.Generator().manual_seed(1)
    store, twin = Dense(), Entries(2, H)
    new = tokens(2, 11, rng)
    store.append(*new)
    twin.append(*new)
    pack(store, twin, rng, shared=True)
    assert store.positions.shape[1] == 1
    check(store, twin)


def test_dropped_tokens_leave_no_bytes_behind():
    store, twin = Dense(), Entries(1, H)
    new = tokens(1, 100, torch.Generator().manual_seed(2))
    store.append(*new)
    twin.append(*new)
    full = store.nbytes
    keys, values = store.tail(100)
    keep = torch.zeros(1, H, 100, dtype=torch.bool)
    keep[..., ::10] = True
    kinds = torch.zeros(1, 100, dtype=torch.long)
    observation = Observation(keys.new_zeros(1, H, 0, D), keys, values, kinds, 1.0, 0)
    store.pack(Evict()(observation, torch.zeros(1, H, 100), keep), 100)
    assert store.nbytes * 10 == full
    store.crop(50)
    assert store.nbytes * 20 == full


def test_nothing_stored_is_an_error_that_says_what_to_do():
    with pytest.raises(CacheError, match="run the prompt"):
        Dense().tail(3)


def test_check_notices_positions_out_of_order():
    store = Dense()
    store.append(*tokens(1, 4, torch.Generator().manual_seed(3)))
    store.seal(4)
    store.positions = torch.tensor([[[0, 2, 1, 3]]])
    with pytest.raises(CacheError, match="ascending"):
        store.check()

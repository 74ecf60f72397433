"""Dense storage equals lists of entries, whatever happens to it, and its bytes are what it says."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foveate.cache.dense import Dense
from foveate.errors import CacheError
from foveate.reduce import Evict
from foveate.types import Observation
from histories import ACTIONS, pack, play
from reference.cache import D, Entries, H, check, tokens


@settings(max_examples=120, deadline=None)
@given(actions=ACTIONS, seed=st.integers(0, 2**31))
def test_any_history_equals_lists(actions, seed):
    play(Dense(), actions, seed)


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

"""Random histories of a storage, played to it and to lists of entries alike."""

import torch
from hypothesis import strategies as st

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


def act(store, twin, action, number, rng):
    """Do to both what asks for no choice of tokens: append, seal, crop or take."""
    rows = len(twin.stored)
    if action == "append":
        new = tokens(rows, 1 + number % 5, rng)
        store.append(*new)
        twin.append(*new)
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
    else:
        raise AssertionError(f"{action!r} is no action")


def play(store, actions, seed, settle=lambda store: store, coded=False):
    """Check a storage after every action; `settle` gives the one to go on with after a prompt."""
    rng, twin = torch.Generator().manual_seed(seed), Entries(2, H)
    for action, number in [("append", 6), *actions]:
        if action == "pack":
            pack(store, twin, rng, shared=number % 2 == 0)
        else:
            act(store, twin, action, number, rng)
        if action in ("pack", "seal"):
            store = settle(store)
        check(store, twin, coded)

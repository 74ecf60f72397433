"""Slots that go while decoding take their numbers with them; the rest keeps its own."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foveate.cache.dense import Dense
from foveate.reduce.evict import pack
from histories import act
from reference.cache import D, H, Numbers, check, tokens

ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["append", "append", "retain", "retain", "crop", "take", "seal", "copy"]),
        st.integers(0, 9999),
    ),
    max_size=10,
)


def number(row, head, position):
    """A number that says whose it is."""
    return 1.0 + position + 1000 * head


def table(store):
    """`number` for every slot [B, H, L], poison where a slot is empty."""
    logical = store.logical().expand(-1, H, -1)
    values = 1.0 + logical + 1000 * torch.arange(H)[:, None]
    return torch.where(logical >= 0, values, torch.nan)


def retain(store, twin, rng, how):
    """Evict at random: heads alike or not, some heads to nothing, or nothing at all."""
    logical = store.logical().expand(-1, H, -1)
    share = [0.0, 0.3, 0.8, 1.0][how % 4]
    keep = torch.rand(logical.shape[0], 1 if how % 3 == 0 else H, logical.shape[2], generator=rng)
    keep = (keep <= share).expand_as(logical) & (logical >= 0)
    names = [
        [set(logical[row, head][keep[row, head]].tolist()) for head in range(H)]
        for row in range(len(keep))
    ]
    store.retain(keep, {"sum": table(store), "count": table(store)})
    twin.retain(names, number)
    assert store.stored == keep.sum(-1).max() or store.stored == logical.shape[2]


def check_numbers(store, twin):
    """Every filled slot has its number, whatever is beside it."""
    check(store, twin)
    if store.keys is None or not store.state:
        return
    logical, numbers = store.logical().expand(-1, H, -1), store.numbers()
    for part in numbers.values():
        assert part.shape == logical.shape
        for row in range(len(part)):
            for head in range(H):
                filled = logical[row, head] >= 0
                mine = dict(
                    zip(
                        logical[row, head, filled].tolist(),
                        part[row, head, filled].tolist(),
                        strict=True,
                    )
                )
                expected = dict.fromkeys(mine, 0.0) | twin.numbers[row][head]
                assert mine == expected


@settings(max_examples=150, deadline=None)
@given(actions=ACTIONS, seed=st.integers(0, 2**31))
def test_any_history_equals_lists(actions, seed):
    rng = torch.Generator().manual_seed(seed)
    store, twin = Dense(), Numbers(2, H)
    for action, how in [("append", 6), *actions]:
        if action == "retain":
            retain(store, twin, rng, how)
        elif action == "copy":
            store = copy.deepcopy(store)
        else:
            act(store, twin, action, how, rng)
        check_numbers(store, twin)


def filled(count=12, rows=2):
    """A store of so many tokens."""
    store = Dense()
    store.append(*tokens(rows, count, torch.Generator().manual_seed(4)))
    return store


@pytest.mark.parametrize("packed", [False, True])
def test_the_prompt_hands_its_numbers_over_once(packed):
    store = filled()
    state, planned = {"sum": table(store)}, torch.tensor([[5, 4, 3]] * 2)
    if packed:
        keep = torch.zeros(2, H, 12, dtype=torch.bool)
        for head in range(H):
            keep[:, head, head::2] = True
        keep[1, 0, 4:] = False
        kept = pack(*store.tail(12), keep)
        store.pack(kept, 12)
        store.note(planned, state, kept.packed_positions)
    else:
        store.seal(12)
        store.note(planned, state, None)
    logical = store.logical().expand(-1, H, -1)
    expected = torch.where(logical >= 0, table(store), 0.0)
    assert torch.equal(store.numbers()["sum"], expected)
    store.note(planned + 1, {"sum": expected + 1}, None)
    assert torch.equal(store.planned, planned) and torch.equal(store.numbers()["sum"], expected)
    store.take(torch.tensor([1, 1, 0]))
    assert torch.equal(store.planned, planned[[1, 1, 0]])
    store.clear()
    assert store.planned is None and not store.state and store.stored == 0


@pytest.mark.parametrize("heads", [1, H], ids=["alike", "different"])
def test_what_went_is_freed_and_what_stays_is_not_looked_at_again(heads):
    store = filled(40)
    before = store.nbytes
    keep = torch.zeros(2, heads, 40, dtype=torch.bool)
    for head in range(heads):
        keep[:, head, head : head + 10] = True
    store.retain(keep.expand(2, H, 40), {"sum": table(store)})
    assert store.nbytes * 4 == before and store.stored == 10
    assert store.positions.shape[1] == heads
    assert store._asked is store.positions and store.is_gapless()
    assert store.metadata_nbytes == 8 * 2 * heads * 10 + 4 * 2 * H * 10


def test_poison_in_slots_that_go_or_are_empty_goes_nowhere():
    store = filled(8)
    store.keys[:, :, 2], store.values[:, :, 2] = torch.nan, torch.inf
    keep = torch.ones(2, H, 8, dtype=torch.bool)
    keep[:, :, 2] = False
    keep[1, 0, :4] = False
    state = {"sum": torch.where(keep, 1.0, torch.nan)}
    store.retain(keep, state)
    assert store.stored == 7 and not store.is_gapless()
    assert store.keys.isfinite().all() and store.values.isfinite().all()
    assert store.state["sum"].isfinite().all()
    assert (store.keys[1, 0, :3] == 0).all() and store.keys.shape == (2, H, 7, D)


def test_everything_may_go():
    store = filled(5)
    store.retain(torch.zeros(2, H, 5, dtype=torch.bool), {"sum": table(store)})
    assert store.stored == 0 and store.seen == 5 and store.nbytes == 0
    store.append(*tokens(2, 1, torch.Generator().manual_seed(5)))
    assert store.logical().tolist() == [[[5]]] * 2 and store.numbers()["sum"].shape == (2, H, 1)
    store.check()

"""Static storage equals lists of entries, whatever happens to it; steps write as `append` does."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foveate.cache.dense import Dense
from foveate.cache.static import Clock, Static, bucket
from foveate.reduce.evict import pack as packed
from histories import ACTIONS, play
from reference.cache import DV, D, H, tokens

ITEM = 4


def begun(rows=2, count=9, ahead=5, share=0.5, seed=3):
    """Static storage with room behind a packed prompt, and dense storage of the same tokens."""
    rng = torch.Generator().manual_seed(seed)
    clock = Clock()
    clock.expect(ahead)
    store, dense = Static(clock), Dense()
    new = tokens(rows, count, rng)
    keep = torch.rand(rows, H, count, generator=rng) < share
    for one in (store, dense):
        one.append(*new)
        if share < 1:
            one.pack(packed(*new, keep), count)
    store.reserve(ahead)
    return store, dense, rng


def agree(store, dense):
    """Assert that two storages hold the same, position by position."""
    store.check()
    for ours, theirs in zip(store.slots(), dense.slots(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    assert torch.equal(store.logical(), dense.logical())
    assert (store.seen, store.start, store.stored) == (dense.seen, dense.start, dense.stored)


@settings(max_examples=40, deadline=None)
@given(ACTIONS, st.integers(0, 10**6), st.integers(0, 40))
def test_any_history_equals_lists_of_entries(actions, seed, ahead):
    clock = Clock()
    clock.expect(ahead)

    def settle(store):
        store.reserve(ahead)
        return store

    play(Static(clock), actions, seed, settle, coded=True)


@given(st.integers(1, 10**7))
def test_buckets_cost_a_quarter_at_most(slots):
    size = bucket(slots)
    assert slots <= size <= max(32, slots * 5 / 4 + 32)
    assert size % 32 == 0
    assert bucket(size) == size


def test_few_buckets_serve_many_lengths():
    assert len({bucket(n) for n in range(1, 4097)}) == 24


@pytest.mark.parametrize("share", [0.5, 1.0])
@pytest.mark.parametrize("taken", [0, 3])
def test_a_step_writes_where_append_does_and_sees_what_is_stored(share, taken):
    store, dense, rng = begun(share=share)
    for _ in range(taken):  # tokens that came one by one, and one that was taken back
        new = tokens(2, 1, rng)
        store.append(*new), dense.append(*new)
    if taken:
        store.crop(store.seen - 1), dense.crop(dense.seen - 1)
    store.prepare(None)
    store.clock.restart(store.seen)
    for _ in range(6):
        new = tokens(2, 1, rng)
        assert store.position() == dense.seen
        keys, values = store.write(*new)
        dense.append(*new)
        hidden = store.hidden().expand(-1, H, -1)
        store.clock.tick()
        store.stepped()
        agree(store, dense)
        for b in range(2):
            for h in range(H):
                filled = dense.logical()[b, h % dense.logical().shape[1]] >= 0
                assert torch.equal(keys[b, h][~hidden[b, h]], dense.slots()[0][b, h][filled])
                assert torch.equal(values[b, h][~hidden[b, h]], dense.slots()[1][b, h][filled])


def test_a_callers_mask_hides_positions_of_prompt_and_answer():
    store, dense, rng = begun(share=1.0)
    new = tokens(2, 2, rng)
    store.append(*new), dense.append(*new)
    mask = torch.ones(2, 12, dtype=torch.long)
    mask[0, :3] = mask[1, 10] = 0
    store.prepare(mask)
    hidden = store.hidden()
    assert hidden[0, 0].nonzero().flatten().tolist() == [0, 1, 2, *range(12, store.size)]
    assert hidden[1, 0].nonzero().flatten().tolist() == [10, *range(12, store.size)]


def test_what_hidden_slots_hold_is_finite_whatever_memory_held():
    """A weight of zero does not undo a number that is none."""
    torch.use_deterministic_algorithms(True)  # memory that nobody has written is not a number
    try:
        assert torch.empty(2).isnan().all()
        store, _, _ = begun()
    finally:
        torch.use_deterministic_algorithms(False)
    assert store.room is not None
    assert bool(store.room.keys.isfinite().all()) and bool(store.room.values.isfinite().all())


def test_tokens_beyond_the_buffer_move_it_once_for_many():
    store, dense, rng = begun(ahead=5)
    sizes = set()
    for _ in range(200):
        new = tokens(2, 1, rng)
        store.append(*new), dense.append(*new)
        sizes.add(store.size)
    agree(store, dense)
    assert len(sizes) <= 7
    assert store.size <= 2 * store.stored


def test_buffers_stay_where_they_are_while_there_is_room():
    store, _, rng = begun(ahead=20)
    room = store.room
    places = [x.data_ptr() for x in (room.keys, room.values, room.base, room.count.made)]
    for _ in range(10):
        store.append(*tokens(2, 1, rng))
    store.prepare(None)
    since = room.since.data_ptr()
    store.crop(store.seen - 4)
    store.prepare(torch.ones(2, store.seen, dtype=torch.long))
    assert store.room is room
    assert [x.data_ptr() for x in (room.keys, room.values, room.base, room.count.made)] == places
    store.append(*tokens(2, 3, rng))
    store.prepare(None)
    assert room.since.data_ptr() == since


def test_buffers_made_in_inference_mode_are_written_to_outside_of_it():
    with torch.inference_mode():
        store, dense, rng = begun(ahead=3)
        store.positions = store.positions.expand(-1, H, -1)
        store.prepare(None)
    for _ in range(5):
        new = tokens(2, 1, rng)
        store.append(*new), dense.append(*new)
        store.prepare(None)
        store.write(*new)
        store.clock.tick()
    agree(store, dense)


@pytest.mark.parametrize("change", ["append", "crop", "take", "pack", "clear"])
def test_a_step_must_be_prepared_anew_after_every_change(change):
    store, _, rng = begun(ahead=8)
    store.append(*tokens(2, 3, rng))
    store.prepare(None)
    assert store.is_ready
    if change == "append":
        store.append(*tokens(2, 1, rng))
    elif change == "crop":
        store.crop(store.seen - 1)
    elif change == "take":
        store.take(torch.tensor([1, 0]))
    elif change == "pack":
        keys, values = store.tail(store.seen)
        store.pack(packed(keys, values, torch.ones(keys.shape[:3], dtype=torch.bool)), store.seen)
    else:
        store.clear()
    assert not store.is_ready


def test_bytes_are_those_of_the_whole_buffers():
    store, dense, _ = begun(ahead=300)
    B, size = 2, store.size
    assert size == bucket(dense.stored + 300)
    assert store.nbytes == B * H * size * (D + DV) * ITEM
    store.prepare(None)
    assert store.metadata_nbytes == dense.metadata_nbytes + B * H * size * 4 + 8
    assert store.name == "static"
    store.take(torch.tensor([0, 1, 1]))
    assert store.name == "dense" and store.nbytes == 3 * H * dense.stored * (D + DV) * ITEM


def test_no_room_where_nothing_is_stored():
    store = Static()
    store.reserve(4)
    assert store.room is None and store.nbytes == 0 and not store.is_ready


def test_copies_count_and_store_for_themselves():
    store, dense, rng = begun()
    other = copy.deepcopy(store)
    assert other.room.count.made is other.clock.on(other.device).made
    new = tokens(2, 1, rng)
    store.append(*new)
    store.prepare(None), store.clock.tick()
    agree(other, dense)
    assert int(other.room.count.made) == 0

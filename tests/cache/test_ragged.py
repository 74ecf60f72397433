"""Ragged storage equals lists of entries, whatever happens to it, and pays for nothing else."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foveate.cache.dense import Dense
from foveate.cache.ragged import Ragged
from foveate.cache.segments import Segments
from foveate.errors import CacheError
from foveate.reduce.evict import pack as packed
from histories import act
from reference.cache import DV, D, H, Numbers, tokens

ITEM = 4
ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["append", "append", "pack", "seal", "retain", "crop", "take", "copy"]),
        st.integers(0, 9999),
    ),
    max_size=12,
)


def number(row, head, position):
    """A number that says whose it is."""
    return 1.0 + position + 1000 * head + 10000 * row


def table(store):
    """`number` for every slot [B, H, L], poison where a slot is empty."""
    logical = store.logical().expand(-1, H, -1)
    heads, rows = torch.arange(H)[:, None], torch.arange(len(logical))[:, None, None]
    values = 1.0 + logical + 1000 * heads + 10000 * rows
    return torch.where(logical >= 0, values, torch.nan)


def begun(rows, rng, count=6):
    """A store with some tokens, the same as dense storage, and its twin."""
    store, twin = Dense(), Numbers(rows, H)
    new = tokens(rows, count, rng)
    store.append(*new)
    twin.append(*new)
    return Ragged.of(store), twin


def pack(store, twin, rng, flat):
    """Keep a random part of the tail, every head its own; as padded tensors, or flat."""
    start, stop = store.start, int(torch.randint(store.start, store.seen + 1, (), generator=rng))
    keys, values = store.tail(stop)
    share = torch.rand(keys.shape[:2], generator=rng)[..., None]
    keep = torch.rand(keys.shape[:3], generator=rng) < share
    keys, values = (torch.where(keep[..., None], x, torch.nan) for x in (keys, values))
    if flat:
        positions = torch.arange(keep.shape[-1])[None, None]
        store.pack(Segments.of(keys, values, keep, positions), stop)
    else:
        store.pack(packed(keys, values, keep), stop)
    twin.pack(keep, stop)
    for row in twin.numbers:  # what is packed anew has none
        row[:] = [{j: x for j, x in h.items() if not start <= j < stop} for h in row]


def retain(store, twin, rng, how):
    """Evict at random: some heads to nothing, or nothing at all."""
    logical = store.logical()
    keep = torch.rand(logical.shape, generator=rng) <= [0.0, 0.3, 0.8, 1.0][how % 4]
    keep = keep & (logical >= 0)
    names = [[set(at[own].tolist()) for at, own in zip(*row, strict=True)]
             for row in zip(logical, keep, strict=True)]  # fmt: skip
    store.retain(keep, {"sum": table(store), "count": table(store)})
    twin.retain(names, number)
    twin.start = store.start  # where nothing goes, the turn goes on


def check(store, twin):
    """Slots, numbers and bytes are those of the lists."""
    store.check()
    logical, (keys, values) = store.logical(), store.slots()
    assert keys.isfinite().all() and values.isfinite().all()
    total, numbers = 0, store.numbers()
    for row, by_head in enumerate(twin.stored):
        for head, entries in enumerate(by_head):
            filled = logical[row, head] >= 0
            at = logical[row, head, filled].tolist()
            assert at == [entry[0] for entry in entries]
            for found, part in ((keys, 1), (values, 2)):
                mine, theirs = found[row, head, filled], [entry[part] for entry in entries]
                assert torch.equal(mine, torch.stack(theirs) if theirs else mine[:0])
            for part in numbers.values():
                assert part[row, head].isfinite().all()
                mine = dict(zip(at, part[row, head, filled].tolist(), strict=True))
                assert mine == dict.fromkeys(at, 0.0) | twin.numbers[row][head]
            total += len(entries)
    assert (keys == 0).all(-1).eq(logical < 0).all(), "empty slots hold zeros, and only they"
    assert store.stored == logical.shape[-1] == keys.shape[-2]
    assert store.nbytes == total * (D + DV) * ITEM
    tail = store.seen - store.base
    S, states = total - len(twin.stored) * H * tail, store.prefix.state
    metadata = 4 * S + 8 * (len(twin.stored) * H + 1) + layout_nbytes(store.prefix)
    metadata += len(states) * 4 * S + sum(x.numel() * 4 for x in store.state.values())
    assert store.metadata_nbytes == metadata


def layout_nbytes(prefix):
    """Four bytes per entry and per bound of a run of several heads."""
    runs = [run for run in prefix.layout.runs if run.places is not None]
    return sum(4 * (run.stop - run.start) + 4 * (run.last - run.first + 1) for run in runs)


@settings(max_examples=200, deadline=None)
@given(actions=ACTIONS, seed=st.integers(0, 2**31))
def test_any_history_equals_lists(actions, seed):
    rng = torch.Generator().manual_seed(seed)
    store, twin = begun(2, rng)
    for action, how in [("seal", 0), *actions]:
        if action == "pack":
            pack(store, twin, rng, flat=how % 2 == 0)
        elif action == "retain":
            retain(store, twin, rng, how)
        elif action == "copy":
            store = copy.deepcopy(store)
        else:
            act(store, twin, action, how, rng)
        check(store, twin)


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 2**31), shared=st.booleans(), sealed=st.booleans())
def test_what_dense_storage_holds_goes_over(seed, shared, sealed):
    """Padded prefixes, shared positions, numbers, a tail: nothing is lost on the way."""
    rng = torch.Generator().manual_seed(seed)
    store, twin = Dense(), Numbers(2, H)
    for part in range(2):
        new = tokens(2, 5, rng)
        store.append(*new)
        twin.append(*new)
        if part == 0 and sealed:
            store.seal(5)
            twin.start = 5
        elif part == 0:
            keep = torch.rand(2, 1 if shared else H, 5, generator=rng) < 0.5
            keep = keep.expand(2, H, 5)
            store.pack(packed(*store.tail(5), keep), 5)
            twin.pack(keep, 5)
    state = {"sum": table(store)[..., : store.prefix].nan_to_num()}
    store.state = state
    for row, by_head in enumerate(twin.numbers):
        for head, numbers in enumerate(by_head):
            held = [entry[0] for entry in twin.stored[row][head] if entry[0] < 5]
            numbers.update({at: number(row, head, at) for at in held})
    store.planned = torch.full((2, H), 7)
    made = Ragged.of(store)
    check(made, twin)
    assert made.seen == store.seen and made.start == store.start and made.planned is store.planned


def test_decoding_moves_nothing_that_was_packed():
    rng = torch.Generator().manual_seed(1)
    store, twin = begun(2, rng, 40)
    pack(store, twin, rng, flat=True)
    before = store.prefix.keys.data_ptr()
    for _ in range(3):
        store.append(*tokens(2, 1, rng))
    store.seal(store.seen)
    store.append(*tokens(2, 2, rng))
    store.crop(store.seen - 1)
    assert store.prefix.keys.data_ptr() == before


def test_beams_of_one_prompt_move_the_tail_alone():
    rng = torch.Generator().manual_seed(2)
    store, twin = begun(4, rng, 20)
    pack(store, twin, rng, flat=True)
    for rows, moves in (([0, 0, 3, 2], True), ([1, 0, 2, 3], False), ([1, 0, 3, 2], True)):
        before = store.prefix
        store.take(torch.tensor(rows))
        twin.take(rows)
        assert (store.prefix is not before) == moves
        check(store, twin)


def test_beams_of_one_prompt_take_their_own_numbers():
    """A look that evicts nothing gives every beam numbers of its own, which follow it."""
    rng = torch.Generator().manual_seed(2)
    store, twin = begun(2, rng, 9)
    pack(store, twin, rng, flat=True)
    for rows in ([0, 0], [1, 0]):
        store.take(torch.tensor(rows))
        twin.take(rows)
        check(store, twin)
        retain(store, twin, rng, 3)
        store.take(torch.tensor([1, 0]))
        twin.take([1, 0])
        check(store, twin)


def test_what_goes_is_freed():
    rng = torch.Generator().manual_seed(3)
    store, _ = begun(1, rng, 100)
    full = store.nbytes
    keep = torch.zeros(1, H, 100, dtype=torch.bool)
    keep[:, 0, :60] = keep[:, 1, ::10] = True
    store.pack(packed(*store.tail(100), keep), 100)
    assert store.nbytes * 300 == full * 70 and store.stored == 60
    store.crop(50)
    assert store.nbytes * 300 == full * 55 and store.stored == 50
    store.clear()
    assert store.nbytes == store.seen == store.stored == 0


@pytest.mark.parametrize("packs", [False, True])
def test_the_prompt_hands_its_numbers_over_once(packs):
    store, _ = begun(2, torch.Generator().manual_seed(4), 12)
    state, planned = {"sum": table(store)}, torch.tensor([[5, 4, 3]] * 2)
    if packs:
        keep = torch.zeros(2, H, 12, dtype=torch.bool)
        for head in range(H):
            keep[:, head, head::2] = True
        keep[1, 0, 4:] = False
        kept = packed(*store.tail(12), keep)
        store.pack(kept, 12)
        store.note(planned, state, kept.packed_positions)
    else:
        store.seal(12)
        store.note(planned, state, None)
    expected = torch.where(store.logical() >= 0, table(store), 0.0)
    assert torch.equal(store.numbers()["sum"], expected)
    store.note(planned + 1, {"sum": expected + 1}, None)
    assert torch.equal(store.planned, planned) and torch.equal(store.numbers()["sum"], expected)
    store.take(torch.tensor([1, 1, 0]))
    assert torch.equal(store.planned, planned[[1, 1, 0]])


@pytest.mark.parametrize(
    ("damage", "what"),
    [("positions", "ascending"), ("values", "disagree"), ("start", "tail")],
)
def test_check_notices_damage(damage, what):
    rng = torch.Generator().manual_seed(5)
    store, _ = begun(2, rng, 20)
    store.pack(packed(*store.tail(20), torch.ones(2, H, 20, dtype=torch.bool)), 20)
    if damage == "start":
        store.start = 21
    else:
        part = getattr(store.prefix, damage)
        changed = part.flip(0) if damage == "positions" else part[1:]
        object.__setattr__(store.prefix, damage, changed)
    with pytest.raises(CacheError, match=what):
        store.check()

"""A tail that is let go before it is packed leaves what packing alone leaves."""

import copy

import pytest
import torch

from foveate.cache.dense import Dense
from foveate.cache.quantized import Quantized
from foveate.cache.ragged import Ragged
from foveate.cache.segments import Segments
from foveate.cache.static import Static
from foveate.hf.stream import narrowed, packed
from foveate.reduce.evict import pack
from reference.cache import H, tokens

KINDS = pytest.mark.parametrize("kind", ["dense", "ragged", "quantized", "static"])
B = 2


class Halves:
    """A codec that holds numbers in sixteen bits."""

    name = "halves"

    def encode(self, tensor):
        return tensor.half()

    def decode(self, code):
        return code.float()

    def nbytes(self, code):
        return code.untyped_storage().nbytes()


def settled(kind, store):
    """The store in the form that decoding uses."""
    if kind == "ragged":
        return store if isinstance(store, Ragged) else Ragged.of(store)
    if kind == "quantized":
        store = Quantized.of(store, Halves())
        store.freeze()
    if kind == "static":
        store.reserve(7)
    return store


def keeping(T, share, rng, shared):
    """A random choice of positions, other heads or all heads alike."""
    return (torch.rand(B, 1 if shared else H, T, generator=rng) < share).expand(B, H, T)


def turn(store, keep, drafts, rng, loose):
    """A prompt that keeps `keep`, drafts behind it; with `loose` the tail goes before the pack."""
    T = keep.shape[-1]
    store.append(*tokens(B, T + drafts, rng))
    stop = store.seen - drafts
    keys, values = store.tail(stop)
    kept = pack(keys, values, keep)
    if loose is not None:
        held = Segments.of(keys, values, loose, torch.arange(T)[None, None])
        before = store.nbytes
        store.release(stop)
        assert store.nbytes < before
        kept = packed(narrowed(narrowed(held, keep | loose), keep))
    store.pack(kept, stop)
    return store


@KINDS
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("sealed", [0, 4])
@pytest.mark.parametrize("drafts", [0, 3])
def test_packing_what_was_released_is_packing(kind, shared, sealed, drafts):
    rng = torch.Generator().manual_seed(11)
    first = Static() if kind == "static" else Dense()
    first = turn(first, keeping(12, 0.5, rng, shared), 0, rng, None)
    if sealed:
        first.append(*tokens(B, sealed, rng))
        first.seal(first.seen)
    first = settled(kind, first)
    keep = keeping(20, 0.3, rng, shared)
    loose = keep | keeping(20, 0.4, rng, shared)
    assert not loose.all() and not torch.equal(keep, loose)
    stores = [
        turn(copy.deepcopy(first), keep, drafts, torch.Generator().manual_seed(3), mine)
        for mine in (None, loose)
    ]
    for one, two in zip(stores[0].slots(), stores[1].slots(), strict=True):
        assert torch.equal(one, two)
    assert torch.equal(stores[0].logical(), stores[1].logical())
    assert stores[0].nbytes == stores[1].nbytes
    for store in stores:
        store.check()
        assert store.released == 0
        store.append(*tokens(B, 2, torch.Generator().manual_seed(4)))
        store.check()


def test_released_first_turn_holds_nothing():
    rng = torch.Generator().manual_seed(1)
    store = Dense()
    store.append(*tokens(B, 9, rng))
    store.release(9)
    assert store.nbytes == 0 and store.seen == 9 and store.prefix == 0
    assert not store.compressed


@pytest.mark.parametrize("shared", [True, False])
def test_segments_pack_as_evict_does(shared):
    rng = torch.Generator().manual_seed(2)
    keys, values = tokens(B, 17, rng)
    for share in (0.0, 0.4, 1.0):
        keep = keeping(17, share, rng, shared)
        keep = keep if share != 0.4 or not shared else keep[:1].expand(B, H, 17)
        held = Segments.of(keys, values, keep, torch.arange(17)[None, None])
        mine, theirs = packed(held), pack(keys, values, keep)
        for name in ("packed_keys", "packed_values", "packed_positions"):
            one, two = getattr(mine, name), getattr(theirs, name)
            assert one.dtype == two.dtype and torch.equal(one, two), name

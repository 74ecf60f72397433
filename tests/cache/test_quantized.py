"""Quantised storage equals lists of entries, encodes what it holds once, and counts codes alone."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foveate.cache.dense import Dense
from foveate.cache.quantized import Quantized
from foveate.hf.quantized import codec
from histories import ACTIONS, pack, play
from reference.cache import DV, D, Entries, H, check, tokens


class Ledger:
    """A codec that loses nothing, and remembers how often every number was encoded."""

    name = "ledger"

    def __init__(self):
        self.encoded = 0

    def encode(self, tensor):
        self.encoded += tensor.numel()
        return tensor.clone()

    def decode(self, code):
        return code

    def nbytes(self, code):
        return code.untyped_storage().nbytes()


def frozen(store):
    """The same storage, its prefix encoded, as at the end of a prompt."""
    store.freeze()
    assert store._keys.shape[2] == store.seen - store.start
    assert store.stored == store.keys.shape[2]
    return store


@settings(max_examples=120, deadline=None)
@given(actions=ACTIONS, seed=st.integers(0, 2**31))
def test_any_history_equals_lists(actions, seed):
    play(Quantized(Ledger()), actions, seed, settle=frozen, coded=True)


def test_decoding_beams_and_later_turns_encode_nothing_twice():
    rng = torch.Generator().manual_seed(3)
    dense, twin, ledger = Dense(), Entries(2, H), Ledger()
    new = tokens(2, 9, rng)
    dense.append(*new)
    twin.append(*new)
    pack(dense, twin, rng, shared=True)
    store = Quantized.of(dense, ledger)
    store.freeze()
    first = ledger.encoded
    assert first == 2 * H * (D + DV) * store.prefix
    for _ in range(3):
        more = tokens(2, 1, rng)
        store.append(*more)
        twin.append(*more)
        store.take(torch.tensor([1, 0]))
        twin.take([1, 0])
    store.freeze()
    store.crop(store.seen - 1)
    twin.crop(twin.seen - 1)
    assert ledger.encoded == first
    pack(store, twin, rng, shared=True)
    later = store.prefix - store._encoded
    store.freeze()
    assert ledger.encoded == first + 2 * H * (D + DV) * later
    check(store, twin, coded=True)
    check(copy.deepcopy(store), twin, coded=True)


KINDS = pytest.mark.parametrize("name", ["fp8", "quanto"])


@KINDS
@pytest.mark.parametrize("shape", [(2, 3, 7, 8), (1, 1, 1, 80), (1, 3, 5, 64), (2, 2, 0, 16)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_codes_are_small_and_near(name, shape, dtype):
    tensor = torch.randn(shape, generator=torch.Generator().manual_seed(4)).to(dtype)
    poisoned = torch.full((*shape[:2], shape[2] + 5, shape[3]), torch.nan, dtype=dtype)
    poisoned[:, :, : shape[2]] = tensor
    kind = codec(name, tensor, tensor)
    code = kind.encode(poisoned[:, :, : shape[2]])
    again = kind.decode(code)
    assert again.shape == tensor.shape and again.dtype == dtype
    tokens = tensor[..., 0].numel()
    if name == "fp8":
        assert kind.nbytes(code) == tokens * (shape[3] + 4)
        bound = 2**-4 * tensor.abs() + 2**-9 / 448 * tensor.abs().amax(-1, keepdim=True) * 2
    else:
        group = max(g for g in range(1, 65) if shape[3] % g == 0)
        groups = tokens * shape[3] // group
        groups += groups % 2
        scale = 2 * dtype.itemsize
        assert kind.nbytes(code) == groups * (group // 2 + scale)
        wide = tensor.float().unflatten(-1, (-1, group))
        low, high = wide.amin(-1, keepdim=True), wide.amax(-1, keepdim=True)
        reach = high.clamp(min=0) - low.clamp(max=0)
        bound = (reach / 15 * 0.52 + 2**-6 * reach).expand_as(wide).flatten(-2)
    assert ((again.float() - tensor.float()).abs() <= bound.float() + 1e-6).all()


@KINDS
def test_a_token_is_encoded_as_it_would_be_alone(name):
    tensor = torch.randn(3, 2, 6, 16, generator=torch.Generator().manual_seed(5))
    tensor[1] *= 1e4
    kind = codec(name, tensor, tensor)
    together = kind.decode(kind.encode(tensor))
    assert torch.equal(together[0, :, 2:4], kind.decode(kind.encode(tensor[0, :, 2:4])))
    assert not torch.equal(together, tensor)

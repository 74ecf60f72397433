"""Prompts that were read just before, and are laid into another cache without being read again."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from transformers import Cache
from transformers.utils.generic import ModelOutput

from foveate.hf.cache import CompressedCache
from foveate.hf.encoded import same
from foveate.hf.layer import CompressedLayer

__all__ = ["Replayed"]

MOST = 2 << 30  # bytes of one prompt
CACHE = "past_key_values"
OTHER_STATES = ("update_conv_state", "update_recurrent_state", "update_indexer")  # of layers


@dataclass(frozen=True)
class _Stored:
    """What a layer gave to its cache."""

    layer: int
    keys: Tensor
    values: Tensor
    more: tuple[Any, ...]
    named: Mapping[str, Any]

    def replay(self, cache: Cache) -> None:
        cache.update(self.keys, self.values, self.layer, *self.more, **self.named)


@dataclass(frozen=True)
class _Asked:
    """The queries that a layer's keys were shown; native layers do not look at them."""

    layer: int
    module: nn.Module
    query: Tensor
    scaling: float | None

    def replay(self, cache: Cache) -> None:
        layer = cache.layers[self.layer]
        if isinstance(layer, CompressedLayer):
            layer.note_queries(self.module, self.query, self.scaling)


@dataclass
class _Reading:
    """One pass of a text model over a prompt: what it was given, did to its cache, and said."""

    owner: nn.Module
    given: Mapping[str, Any]
    most: int
    did: list[_Stored | _Asked] = field(default_factory=list)
    held: dict[int, int] = field(default_factory=dict)  # bytes of every storage
    said: Mapping[str, Any] = field(default_factory=dict)
    make: Callable[..., Any] = dict
    versions: Sequence[int] = ()

    def note(self, one: _Stored | _Asked) -> None:
        """Note what was done; beyond `most` bytes nothing is held any more, nor noted."""
        if sum(self.held.values()) <= self.most:
            self.did.append(one)
            self._hold(_tensors([*vars(one).values()]))

    def close(self, said: Any, cache: Cache) -> bool:
        """Note the end; return whether the pass can be replayed, and is worth its bytes."""
        stored = [one for one in self.did if isinstance(one, _Stored)]
        if len(stored) != len(cache.layers) or not isinstance(said, ModelOutput):
            return False  # layers with other states, none of their own, or too many bytes
        if any(hasattr(layer, name) for layer in cache.layers for name in OTHER_STATES):
            return False
        self.make = type(said)
        self.said = {name: value for name, value in said.items() if name != CACHE}
        tensors = self._tensors()
        if any(x.is_inference() for x in tensors):
            return False  # nothing tells when these are written to
        self.versions = [x._version for x in tensors]
        self._hold(tensors)
        return bool(self.did)

    def fits(self, owner: nn.Module, given: Mapping[str, Any]) -> bool:
        """Return whether this is the same model and prompt, and nobody wrote to what is held."""
        unwritten = [x._version for x in self._tensors()] == self.versions
        return self.owner is owner and unwritten and same(self.given, given)

    def replay(self, cache: Cache) -> Any:
        """Do to a cache what the pass did, and return what it said."""
        for one in self.did:
            one.replay(cache)
        return self.make(**{**self.said, CACHE: cache})

    def _hold(self, tensors: Sequence[Tensor]) -> None:
        for storage in (x.untyped_storage() for x in tensors):
            self.held[storage.data_ptr()] = storage.nbytes()
        if sum(self.held.values()) > self.most:
            self.did.clear()

    def _tensors(self) -> list[Tensor]:
        did = [x for one in self.did for x in vars(one).values()]
        return [*_tensors(self.given), *_tensors(did), *_tensors(self.said)]


class Replayed:
    """The last prompt that a text model read whole, with all it did to the cache.

    A method decides what is kept of a prompt, and changes nothing of how it is read; a grid asks
    the same prompts of many methods. Prompts that take more than `most` bytes are read every time.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._last: _Reading | None = None
        self.reused = 0  # prompts that were not read again

    @contextmanager
    def around(self, model: nn.Module) -> Iterator[None]:
        """Replay prompts into empty caches where the text model is given the same again."""
        find: Any = getattr(model, "get_decoder", None)
        decoder = None if find is None else find()
        if decoder is None or decoder is model or "forward" in vars(decoder):
            yield
            return
        forward = decoder.forward
        pass_ = functools.partial(self._pass, decoder, forward)
        vars(decoder)["forward"] = functools.wraps(forward)(pass_)
        try:
            yield
        finally:
            vars(decoder).pop("forward", None)

    def _pass(
        self, owner: nn.Module, forward: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        cache = kwargs.get(CACHE)
        if args or _is_step(kwargs) or not isinstance(cache, Cache) or cache.get_seq_length():
            return forward(*args, **kwargs)
        given = {name: value for name, value in kwargs.items() if name != CACHE}
        last = self._last
        if last is not None and last.fits(owner, given):
            self.reused += 1
            return last.replay(cache)
        last = self._last = None  # not two at once
        if not isinstance(cache, CompressedCache):  # nobody hears of its queries
            return forward(*args, **kwargs)
        reading = _Reading(owner, given, self._most)
        with _noting(cache, reading.note):
            said = forward(*args, **kwargs)
        if reading.close(said, cache):
            self._last = reading
        return said


def _is_step(given: Mapping[str, Any]) -> bool:
    """Return whether a pass brings one token; such a one may be compiled, and is let through."""
    tokens = given.get("inputs_embeds")
    tokens = given.get("input_ids") if tokens is None else tokens
    return tokens is not None and tokens.shape[1] == 1


@contextmanager
def _noting(cache: CompressedCache, note_one: Callable[[_Stored | _Asked], None]) -> Iterator[None]:
    """Note all that a pass does to a cache."""
    update = cache.update

    def store(keys: Tensor, values: Tensor, layer: int, *more: Any, **named: Any) -> Any:
        note_one(_Stored(layer, keys, values, more, named))
        return update(keys, values, layer, *more, **named)

    def asked(layer: CompressedLayer, note: Callable[..., None], *call: Any) -> None:
        note_one(_Asked(layer.index, *call))
        note(*call)

    vars(cache)["update"] = store
    for layer in cache.compressed_layers:
        vars(layer)["note_queries"] = functools.partial(asked, layer, layer.note_queries)
    try:
        yield
    finally:
        del vars(cache)["update"]
        for layer in cache.compressed_layers:
            del vars(layer)["note_queries"]


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, list | tuple):
        return []
    return [x for one in value for x in _tensors(one)]

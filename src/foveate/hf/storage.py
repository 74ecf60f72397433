"""Which form a layer's tokens are stored in; chosen anew whenever a prompt is packed."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from foveate.cache.dense import Dense
from foveate.cache.quantized import Quantized
from foveate.cache.ragged import Ragged
from foveate.cache.segments import Segments
from foveate.cache.static import Clock, Static
from foveate.cache.store import Store
from foveate.errors import InputError, MethodError
from foveate.hf.quantized import check_quantized, codec
from foveate.method import Evicting, Method, Reduce
from foveate.types import LayerKV, Observation

__all__ = ["STORAGES", "Form"]

STORAGES = ("dense", "ragged", "auto", "static")


@dataclass(frozen=True, slots=True)
class Form:
    """How a cache stores: `storage` is one of `STORAGES`, `quantized` one of `QUANTIZED`."""

    storage: str = "dense"
    quantized: str | None = None
    clock: Clock = field(default_factory=Clock, compare=False)  # of static storage

    def __post_init__(self) -> None:
        if self.storage not in STORAGES:
            allowed = ", ".join(map(repr, STORAGES))
            raise InputError(f"storage {self.storage!r} is not known; allowed: {allowed}")
        if self.storage == "static" and self.quantized is not None:
            raise InputError(
                f"storage='static' and quantized={self.quantized!r} came together, but a compiled "
                "step reads keys and values as they are; leave one of them out"
            )
        check_quantized(self.quantized)

    def check(self, method: Method) -> None:
        """Raise `MethodError` for a method that this form cannot serve."""
        if self.storage == "static" and method.when.follow is not None:
            raise MethodError(
                "eviction while decoding and storage='static' came together, but a compiled step "
                "cannot take slots away; use storage='dense', or every=0"
            )
        if self.quantized is not None and method.when.follow is not None:
            raise MethodError(
                "eviction while decoding and quantized storage came together, but what stays would "
                "be rounded anew at every look; use every=0, or leave quantized out"
            )

    def empty(self) -> Store:
        """Return the storage of a layer that has seen nothing."""
        return Static(self.clock) if self.storage == "static" else Dense()

    def reduced(
        self, store: Store, reduce: Reduce, observation: Observation, scores: Tensor, keep: Tensor
    ) -> LayerKV | Segments:
        """Return what is kept of a prompt, as the storage that is going to take it holds it."""
        if not self.is_ragged(store, keep):
            return reduce(observation, scores, keep)
        if isinstance(reduce, Evicting) and reduce.evicts:  # no padded copy, not even in passing
            positions = torch.arange(keep.shape[-1], device=keep.device)
            return Segments.of(observation.keys, observation.values, keep, positions[None, None])
        kept = reduce(observation, scores, keep)
        at = kept.packed_positions
        return Segments.of(kept.packed_keys, kept.packed_values, at >= 0, at)

    def is_ragged(self, store: Store, keep: Tensor) -> bool:
        """Return whether what a prompt keeps [B, H, T] goes to ragged storage.

        "auto" takes it where rows or heads differ, for dense storage would pay for empty slots.
        """
        if self.storage == "ragged" or isinstance(store, Ragged):
            return True
        if self.storage != "auto" or not isinstance(store, Dense):
            return False
        counts = keep.sum(-1)
        return not store.is_gapless() or bool((counts != counts[:1, :1]).any())

    def packing(self, store: Store, kept: LayerKV | Segments) -> Store:
        """Return the storage that is going to take what was kept of a prompt, with all it holds."""
        if isinstance(kept, Segments) and isinstance(store, Dense):
            name = self.quantized
            return Ragged.of(store, None if name is None else codec(name, *store.slots()))
        return store

    def retained(self, store: Store) -> Store:
        """Return the storage that goes on with what stays after an eviction while decoding."""
        if self.storage not in ("ragged", "auto") or not isinstance(store, Dense):
            return store
        agrees = store.is_gapless() if self.storage == "auto" else not store.compressed
        return store if agrees else Ragged.of(store)

    def settled(self, store: Store) -> Store:
        """Return the storage in which a layer goes on to decode, all its prompt being packed."""
        if isinstance(store, Static):
            store.reserve(max(self.clock.ahead, 1))
        if self.quantized is None or not isinstance(store, Dense) or store.device is None:
            return store
        made = Quantized.of(store, codec(self.quantized, *store.slots()))
        made.freeze()
        return made

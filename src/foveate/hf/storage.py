"""Which form a layer's tokens are stored in; chosen anew whenever a prompt is packed."""

from __future__ import annotations

from dataclasses import dataclass

from foveate.cache.dense import Dense
from foveate.cache.quantized import Quantized
from foveate.cache.store import Store
from foveate.errors import InputError, MethodError
from foveate.hf.quantized import check_quantized, codec
from foveate.method import Method
from foveate.types import LayerKV

__all__ = ["STORAGES", "Form"]

STORAGES = ("dense", "auto")


@dataclass(frozen=True, slots=True)
class Form:
    """How a cache stores: `storage` is one of `STORAGES`, `quantized` one of `QUANTIZED`."""

    storage: str = "dense"
    quantized: str | None = None

    def __post_init__(self) -> None:
        if self.storage not in STORAGES:
            allowed = ", ".join(map(repr, STORAGES))
            raise InputError(f"storage {self.storage!r} is not known; allowed: {allowed}")
        check_quantized(self.quantized)

    def check(self, method: Method) -> None:
        """Raise `MethodError` for a method that this form cannot serve."""
        if self.quantized is not None and method.when.follow is not None:
            raise MethodError(
                "eviction while decoding and quantized storage came together, but what stays would "
                "be rounded anew at every look; use every=0, or leave quantized out"
            )

    def empty(self) -> Store:
        """Return the storage of a layer that has seen nothing."""
        return Dense()

    def packing(self, store: Store, kept: LayerKV) -> Store:
        """Return the storage that is going to take what was kept of a prompt, with all it holds."""
        return store

    def settled(self, store: Store) -> Store:
        """Return the storage in which a layer goes on to decode, all its prompt being packed."""
        if self.quantized is None or store.device is None:
            return store
        assert isinstance(store, Dense)
        made = Quantized.of(store, codec(self.quantized, *store.slots()))
        made.freeze()
        return made

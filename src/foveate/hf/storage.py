"""Which form a layer's tokens are stored in; chosen anew whenever a prompt is packed."""

from __future__ import annotations

from dataclasses import dataclass

from foveate.cache.dense import Dense
from foveate.cache.store import Store
from foveate.errors import InputError
from foveate.types import LayerKV

__all__ = ["STORAGES", "Form"]

STORAGES = ("dense", "auto")


@dataclass(frozen=True, slots=True)
class Form:
    """How a cache stores: `storage` is one of `STORAGES`."""

    storage: str = "dense"

    def __post_init__(self) -> None:
        if self.storage not in STORAGES:
            allowed = ", ".join(map(repr, STORAGES))
            raise InputError(f"storage {self.storage!r} is not known; allowed: {allowed}")

    def empty(self) -> Store:
        """Return the storage of a layer that has seen nothing."""
        return Dense()

    def packing(self, store: Store, kept: LayerKV) -> Store:
        """Return the storage that is going to take what was kept of a prompt, with all it holds."""
        return store

    def settled(self, store: Store) -> Store:
        """Return the storage in which a layer goes on to decode, all its prompt being packed."""
        return store

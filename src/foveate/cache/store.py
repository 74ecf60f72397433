"""What a layer asks of its storage, whatever form the kept keys and values are held in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from foveate.types import Bool, Float, Int, LayerKV

__all__ = ["Store"]


@runtime_checkable
class Store(Protocol):
    """The stored keys and values of one layer: what survived compression, then a plain tail.

    `seen` counts logical tokens, `start` is the logical position of the tail's first one, `stored`
    the slots of the longest head. `state` holds numbers beside the slots, for methods that evict
    while decoding, and `planned` [B, H] what the first prompt kept.
    """

    seen: int
    start: int
    planned: Tensor | None
    state: dict[str, Tensor]

    @property
    def name(self) -> str:
        """Return what reports call this form."""

    @property
    def stored(self) -> int:
        """Return the slots of the longest head."""

    @property
    def compressed(self) -> bool:
        """Return whether anything was evicted, so that slots and positions differ."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Return rows, key-value heads, width of keys and width of values: (B, H, D, Dv)."""

    @property
    def dtype(self) -> torch.dtype:
        """Return the type of the keys and values that attention sees."""

    @property
    def device(self) -> torch.device | None:
        """Return where the keys are, or None while nothing is stored."""

    @property
    def nbytes(self) -> int:
        """Return the bytes that the stored keys and values really hold, whole storages counted."""

    @property
    def metadata_nbytes(self) -> int:
        """Return the bytes of what says where the stored tokens belong, and of the state."""

    def append(
        self, keys: Float[Tensor, "B H T D"], values: Float[Tensor, "B H T Dv"]
    ) -> tuple[Tensor, Tensor]:
        """Store new tokens behind the tail, and return what attention is given."""

    def tail(self, stop: int) -> tuple[Float[Tensor, "B H T D"], Float[Tensor, "B H T Dv"]]:
        """Return the tail's keys and values up to logical position `stop`."""

    def release(self, stop: int) -> None:
        """Let go of the tail up to position `stop`; what is kept of it comes with `pack`.

        In between, positions and `seen` count on as if it were there, and it is not read.
        """

    def pack(self, kept: LayerKV, stop: int) -> None:
        """Replace the tail up to position `stop` by what was kept of it, and free the rest."""

    def seal(self, stop: int) -> None:
        """Count the tail up to logical position `stop` as prefix, every token of it kept."""

    def note(
        self,
        planned: Int[Tensor, "B H"],
        state: Mapping[str, Tensor],
        order: Int[Tensor, "B H K"] | None,
    ) -> None:
        """Remember how much the first prompt kept, and the state of what it kept."""

    def slots(self) -> tuple[Float[Tensor, "B H L D"], Float[Tensor, "B H L Dv"]]:
        """Return all stored keys and values in slots; empty ones hold zeros."""

    def logical(self) -> Int[Tensor, "B h L"]:
        """Return the position of every slot, -1 where it is empty; h is 1 if heads agree."""

    def numbers(self) -> dict[str, Float[Tensor, "B H L"]]:
        """Return the state of all slots."""

    def summary(self, keep: Bool[Tensor, "B H L"]) -> Int[Tensor, " 4"]:
        """Return four numbers about what is kept, for `retain`, where they may be waited for."""

    def retain(
        self,
        keep: Bool[Tensor, "B H L"],
        state: Mapping[str, Tensor],
        summary: Sequence[int] | None = None,
    ) -> None:
        """Free every slot that is not kept; what stays is prefix then, with its new state."""

    def crop(self, length: int) -> None:
        """Forget every token from logical position `length` on; what was evicted stays evicted."""

    def take(self, rows: Int[Tensor, " b"]) -> None:
        """Keep the named rows of the batch, in that order; a row may be named twice."""

    def clear(self) -> None:
        """Forget everything."""

    def check(self) -> None:
        """Raise `CacheError` if positions are not ascending or lengths do not agree."""

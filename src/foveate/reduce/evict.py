"""The rest is dropped."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from foveate.types import Bool, Float, Int, LayerKV, Observation

__all__ = ["Evict", "pack"]


@dataclass(frozen=True, slots=True)
class Evict:
    """Kept keys and values stay as they are, the rest is dropped."""

    @property
    def evicts(self) -> bool:
        """Return that nothing is read of what is dropped."""
        return True

    def __call__(
        self,
        observation: Observation,
        scores: Float[Tensor, "B H T"],
        keep: Bool[Tensor, "B H T"],
    ) -> LayerKV:
        """Return the kept keys and values."""
        return pack(observation.keys, observation.values, keep)


def pack(
    keys: Float[Tensor, "B H T D"], values: Float[Tensor, "B H T Dv"], keep: Bool[Tensor, "B H T"]
) -> LayerKV:
    """Return the kept entries by ascending position, right-aligned; empty slots hold zeros."""
    counts = keep.sum(-1)
    most = int(counts.max()) if counts.numel() else 0
    order = keep.int().argsort(dim=-1, stable=True)[..., keep.shape[-1] - most :]
    empty = ~keep.gather(-1, order)
    keys, values = taken(keys, order), taken(values, order)
    if bool((counts != most).any()):
        keys = keys.masked_fill(empty[..., None], 0)
        values = values.masked_fill(empty[..., None], 0)
    return LayerKV(keys, values, order.masked_fill(empty, -1))


def taken(
    entries: Float[Tensor, "B H T D"], order: Int[Tensor, "B H K"]
) -> Float[Tensor, "B H K D"]:
    """Return the entries in the given order."""
    return entries.gather(2, order[..., None].expand(*order.shape, entries.shape[-1]))

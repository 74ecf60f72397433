"""The rest is dropped."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from foveate.kernels.compact import compact
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
    T, counts = keep.shape[2], keep.sum(-1)
    most = int(counts.max()) if counts.numel() else 0
    filled = torch.arange(most, device=keep.device) >= most - counts[..., None]
    slots = torch.full(filled.shape, -1, device=keep.device)
    slots.masked_scatter_(filled, keep.flatten().nonzero()[:, 0])
    keys, values = compact(keys, values, slots)
    return LayerKV(keys, values, torch.where(filled, slots % max(1, T), -1))


def taken(
    entries: Float[Tensor, "B H T D"], order: Int[Tensor, "B H K"]
) -> Float[Tensor, "B H K D"]:
    """Return the entries in the given order."""
    return entries.gather(2, order[..., None].expand(*order.shape, entries.shape[-1]))

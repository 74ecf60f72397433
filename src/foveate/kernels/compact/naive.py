"""`compact` as one writes it down: a loop over the slots."""

from __future__ import annotations

import torch
from torch import Tensor

from foveate.types import Float, Int

__all__ = ["compact"]


def compact(
    keys: Float[Tensor, "B H T D"], values: Float[Tensor, "B H T Dv"], slots: Int[Tensor, "*shape"]
) -> tuple[Float[Tensor, "*shape D"], Float[Tensor, "*shape Dv"]]:
    """Return the keys and values of `slots`, in their order; -1 gives zeros."""
    H, T = keys.shape[1:3]
    taken = []
    for entries in (keys, values):
        out = torch.zeros(slots.numel(), entries.shape[-1]).to(entries)
        for place, slot in enumerate(slots.flatten().tolist()):
            if slot >= 0:
                out[place] = entries[slot // (H * T), slot // T % H, slot % T]
        taken.append(out.view(*slots.shape, entries.shape[-1]))
    return taken[0], taken[1]

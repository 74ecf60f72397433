"""`compact` in Triton: one kernel that reads and writes every kept key and value once."""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from foveate.kernels.compact.rows import copy_rows
from foveate.types import Float, Int

__all__ = ["compact"]

TILE_BYTES = 1 << 13  # of keys that one program copies


def compact(
    keys: Float[Tensor, "B H T D"], values: Float[Tensor, "B H T Dv"], slots: Int[Tensor, "*shape"]
) -> tuple[Float[Tensor, "*shape D"], Float[Tensor, "*shape Dv"]]:
    """Return the keys and values of `slots`, in their order; -1 gives zeros."""
    (_, H, T, D), Dv = keys.shape, values.shape[-1]
    slots = slots.contiguous()
    new_keys = torch.empty(*slots.shape, D, dtype=keys.dtype, device=keys.device)
    new_values = torch.empty(*slots.shape, Dv, dtype=values.dtype, device=values.device)
    if slots.numel() == 0:
        return new_keys, new_values
    widths = triton.next_power_of_2(D), triton.next_power_of_2(Dv)
    rows = max(1, TILE_BYTES // (max(widths) * keys.element_size()))
    copy_rows[(triton.cdiv(slots.numel(), rows),)](
        keys, values, slots, new_keys, new_values, slots.numel(), H, max(1, T),
        *keys.stride(), *values.stride(), D=D, DV=Dv,
        BLOCK_D=widths[0], BLOCK_DV=widths[1], BLOCK=triton.next_power_of_2(rows),
        enable_fp_fusion=True,
    )  # fmt: skip
    return new_keys, new_values

"""`allocate` by the level of the water: solved in closed form between the sorted corners."""

from __future__ import annotations

import torch
from torch import Tensor

from foveate.errors import InputError
from foveate.order import inverse
from foveate.types import Float, Int

__all__ = ["allocate", "round_to", "water_level"]

GRAIN = 2**30  # fractional parts that differ by less than 1 / GRAIN count as equal


def allocate(
    weights: Float[Tensor, "*batch n"],
    total: Int[Tensor, "*batch"],
    cap: Int[Tensor, "*batch n"],
    floor: Int[Tensor, "*batch n"],
) -> Int[Tensor, "*batch n"]:
    """Return whole numbers near `clip(level * weights, floor, cap)` with the sum `total`.

    The level is the one at which the real numbers sum to `total`; what rounding down leaves goes to
    the largest fractional parts, the earlier index first. Without any weight all count alike, and
    where the weighted ones are at their cap the others share the rest alike. A total below the
    floors gives the floors, one above the caps gives the caps. Weights are finite and not negative.
    """
    device = weights.device
    # So few numbers are quicker in host memory, where they are going to be read anyway.
    weights, total, cap, floor = (x.detach().cpu() for x in (weights, total, cap, floor))
    if not bool((weights.isfinite() & (weights >= 0)).all()):
        raise InputError(
            f"weights {weights.tolist()} cannot be shared by; give finite numbers >= 0"
        )
    cap = cap.long().clamp(min=0)
    floor = torch.minimum(floor.long().clamp(min=0), cap)
    total = torch.minimum(torch.maximum(total.long(), floor.sum(-1)), cap.sum(-1))
    if cap.shape[-1] == 0:
        return cap.to(device)
    shares = water_level(weights.double(), total, cap, floor)
    return round_to(shares, total, cap, floor).to(device)


def water_level(
    weights: Float[Tensor, "*batch n"],
    total: Int[Tensor, "*batch"],
    cap: Int[Tensor, "*batch n"],
    floor: Int[Tensor, "*batch n"],
) -> Float[Tensor, "*batch n"]:
    """Return `clip(level * weights, floor, cap)` with the sum `total`, which must be feasible."""
    weighted = weights > 0
    reach = torch.where(weighted, cap, floor).sum(-1)
    beyond = (total > reach)[..., None]
    floor = torch.where(beyond & weighted, cap, floor)
    weights = torch.where(beyond, (~weighted).double(), weights)
    weights = weights / weights.amax(-1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
    moving = weights > 0
    divisor = torch.where(moving, weights, 1)
    starts = torch.where(moving, floor / divisor, 0)
    ends = torch.where(moving, cap / divisor, 0)
    corners = torch.cat([torch.zeros_like(starts[..., :1]), starts, ends], -1)  # [*batch, 2n+1]
    height = corners[..., None] * weights[..., None, :]
    filled = height.clamp(floor[..., None, :], cap[..., None, :]).sum(-1)
    below = filled <= total[..., None].double()
    low = corners.masked_fill(~below, 0).amax(-1, keepdim=True)
    active = moving & (starts <= low) & (low < ends)
    fixed = torch.where(moving & (low >= ends), cap, floor).masked_fill(active, 0)
    slope = weights.masked_fill(~active, 0).sum(-1, keepdim=True)
    rest = total[..., None] - fixed.sum(-1, keepdim=True)
    level = rest / slope.clamp(min=torch.finfo(torch.float64).tiny)
    return torch.where(active, (level * weights).clamp(floor, cap), fixed.double())


def round_to(
    shares: Float[Tensor, "*batch n"],
    total: Int[Tensor, "*batch"],
    cap: Int[Tensor, "*batch n"],
    floor: Int[Tensor, "*batch n"],
) -> Int[Tensor, "*batch n"]:
    """Return `shares` rounded down, and up where the fractional part is among the largest."""
    units = (shares * GRAIN).round()
    base = (units / GRAIN).floor()
    fraction = units - base * GRAIN
    base = base.long().clamp(floor, cap)
    fraction = fraction.masked_fill(base >= cap, -1)
    left = total - base.sum(-1)
    order = fraction.argsort(dim=-1, descending=True, stable=True)
    return base + (inverse(order) < left[..., None]).long()

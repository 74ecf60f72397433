"""Which kept token a dropped one goes to: the nearest one, or the one with the nearest key."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from foveate.reduce.evict import pack, taken
from foveate.types import Bool, Float, Int

__all__ = ["nearest_key", "nearest_position"]

BLOCK_ELEMENTS = 1 << 23  # similarities held at once
EQUAL = 1e-6  # cosines that differ by less are equal, and the earlier token is taken


def nearest_position(
    kept: Bool[Tensor, "B H T"], valid: Bool[Tensor, "B T"]
) -> Int[Tensor, "B H T"]:
    """Return the nearest kept position for every position, the earlier one of two.

    Pads have no length: distances are between the tokens of a row.
    """
    T = kept.shape[-1]
    place = valid.cumsum(-1)[:, None].expand_as(kept)
    index = torch.arange(T, device=kept.device).expand_as(kept)
    before = torch.where(kept, index, -1).cummax(-1).values
    after = torch.where(kept, index, T).flip(-1).cummin(-1).values.flip(-1)
    back = place - place.gather(-1, before.clamp(min=0))
    ahead = place.gather(-1, after.clamp(max=T - 1)) - place
    earlier = (after == T) | ((before >= 0) & (back <= ahead))
    return torch.where(earlier, before, after).clamp(0, T - 1)


def nearest_key(
    keys: Float[Tensor, "B H T D"], kept: Bool[Tensor, "B H T"], giving: Bool[Tensor, "B H T"]
) -> tuple[Int[Tensor, "B H T"], Float[Tensor, "B H T"]]:
    """Return for every giving position the kept one with the highest cosine of keys, and that.

    It is 0 for a key of length 0; of equals the earlier is taken. What does not give gets 0 and 0.
    """
    table = pack(keys, keys, kept)
    targets = normalize(table.packed_keys.float(), dim=-1).transpose(-1, -2)
    empty = (table.packed_positions < 0)[:, :, None]
    counts = giving.sum(-1)
    most = int(counts.max()) if counts.numel() and targets.shape[-1] else 0
    givers = giving.int().argsort(dim=-1, descending=True, stable=True)[..., :most]
    width = max(1, targets.shape[0] * targets.shape[1] * targets.shape[3])
    chosen = torch.zeros_like(givers)
    nearness = torch.zeros_like(givers, dtype=torch.float32)
    step = max(1, BLOCK_ELEMENTS // width)
    for start in range(0, most, step):
        part = slice(start, start + step)
        directions = normalize(taken(keys, givers[..., part]).float(), dim=-1)
        cosine = (directions @ targets).masked_fill(empty, -torch.inf)  # [B, H, block, K]
        nearest = cosine.amax(-1, keepdim=True)
        chosen[..., part] = (cosine >= nearest - EQUAL).to(torch.uint8).argmax(-1)
        nearness[..., part] = nearest[..., 0]
    chosen = table.packed_positions.gather(-1, chosen) if most else chosen
    target = torch.zeros_like(giving, dtype=torch.long).scatter(-1, givers, chosen)
    near = torch.zeros_like(giving, dtype=torch.float32).scatter(-1, givers, nearness)
    return target.masked_fill(~giving, 0), near.masked_fill(~giving, 0)

"""A share of what does not stay is averaged into what does."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from foveate.option import Choice, Share, check_choice, check_share
from foveate.reduce.evict import pack
from foveate.types import Bool, Float, Int, LayerKV, Observation

__all__ = ["Merge"]

NEAREST = ("position", "key")
BLOCK_ELEMENTS = 1 << 23  # similarities held at once


@dataclass(frozen=True, slots=True)
class Merge:
    """The best `share` of the dropped visual tokens is averaged into kept visual tokens.

    Each of them goes, key and value, to the kept visual token of its head that is `nearest`: by
    position (the earlier one of two) or by the cosine of the keys. A kept token becomes the plain
    mean of itself and all it receives. Text neither gives nor receives. `share=0` is `Evict`.
    """

    share: Share
    nearest: Choice = "position"

    def __post_init__(self) -> None:
        check_share("share", self.share)
        check_choice("nearest", self.nearest, NEAREST)

    def __call__(
        self,
        observation: Observation,
        scores: Float[Tensor, "B H T"],
        keep: Bool[Tensor, "B H T"],
    ) -> LayerKV:
        """Return the kept keys and values, with what was merged into them."""
        visual = observation.kinds.visual[:, None].expand_as(keep)
        kept = keep & visual
        giving = best(scores, visual & ~keep & kept.any(-1, keepdim=True), self.share)
        if not bool(giving.any()):
            return pack(observation.keys, observation.values, keep)
        if self.nearest == "position":
            target = nearest_position(kept)
        else:
            target = nearest_key(observation.keys, kept, giving)
        received = torch.zeros_like(scores, dtype=torch.float32)
        received = received.scatter_add(-1, target, giving.float())
        keys = averaged(observation.keys, target, giving, received)
        values = averaged(observation.values, target, giving, received)
        return pack(keys, values, keep)


def best(
    scores: Float[Tensor, "B H T"], among: Bool[Tensor, "B H T"], share: float
) -> Bool[Tensor, "B H T"]:
    """Return the highest-scored `share` of the marked tokens, the earlier of equals first."""
    order = scores.masked_fill(~among, -torch.inf).argsort(dim=-1, descending=True, stable=True)
    places = torch.arange(order.shape[-1], device=order.device).expand_as(order)
    rank = torch.empty_like(order).scatter_(-1, order, places)
    count = (among.sum(-1, keepdim=True).float() * share).round()
    return among & (rank < count)


def nearest_position(kept: Bool[Tensor, "B H T"]) -> Int[Tensor, "B H T"]:
    """Return the nearest kept position for every position, the earlier one of two."""
    T = kept.shape[-1]
    place = torch.arange(T, device=kept.device).expand_as(kept)
    before = torch.where(kept, place, -T).cummax(-1).values
    after = torch.where(kept, place, 3 * T).flip(-1).cummin(-1).values.flip(-1)
    nearest = torch.where(place - before <= after - place, before, after)
    return nearest.clamp(0, T - 1)


def nearest_key(
    keys: Float[Tensor, "B H T D"], kept: Bool[Tensor, "B H T"], giving: Bool[Tensor, "B H T"]
) -> Int[Tensor, "B H T"]:
    """Return for every giving position the kept one whose key is nearest in direction."""
    T = kept.shape[-1]
    place = torch.arange(T, device=kept.device).expand_as(kept)
    table = pack(keys, keys, kept)
    targets = torch.nn.functional.normalize(table.packed_keys.float(), dim=-1)
    filled = (table.packed_positions >= 0)[:, :, None]
    width = max(1, targets.shape[0] * targets.shape[1] * targets.shape[2])
    found = []
    for part in keys.split(max(1, BLOCK_ELEMENTS // width), 2):
        directions = torch.nn.functional.normalize(part.float(), dim=-1)
        cosine = directions @ targets.transpose(-1, -2)  # [B, H, block, K]
        found.append(cosine.masked_fill(~filled, -torch.inf).argmax(-1))
    target = table.packed_positions.gather(-1, torch.cat(found, -1))
    return torch.where(giving, target, place).clamp(min=0)


def averaged(
    entries: Float[Tensor, "B H T D"],
    target: Int[Tensor, "B H T"],
    giving: Bool[Tensor, "B H T"],
    received: Float[Tensor, "B H T"],
) -> Float[Tensor, "B H T D"]:
    """Return the entries; those that receive are the mean of themselves and what they receive."""
    index = target[..., None].expand_as(entries)
    gifts = entries.float().masked_fill(~giving[..., None], 0)
    sums = torch.zeros_like(gifts).scatter_add_(2, index, gifts)
    mean = (entries.float() + sums) / (1 + received[..., None])
    return torch.where(received[..., None] > 0, mean.to(entries.dtype), entries)

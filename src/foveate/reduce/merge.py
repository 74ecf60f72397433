"""A share of what does not stay is averaged into what does."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from foveate.option import Choice, Share, check_choice, check_share
from foveate.order import inverse
from foveate.reduce.evict import pack
from foveate.reduce.fold import folded, received
from foveate.reduce.match import nearest_key, nearest_position
from foveate.types import Bool, Float, LayerKV, Observation

__all__ = ["Merge"]

NEAREST = ("position", "key")


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

    @property
    def evicts(self) -> bool:
        """Return whether nothing is merged, so that nothing is read of what is dropped."""
        return self.share == 0

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
            target = nearest_position(kept, observation.kinds.valid)
        else:
            target, _ = nearest_key(observation.keys, kept, giving)
        number = received(target, giving)
        keys = folded(observation.keys, target, giving, number)
        values = folded(observation.values, target, giving, number)
        return pack(keys, values, keep)


def best(
    scores: Float[Tensor, "B H T"], among: Bool[Tensor, "B H T"], share: float
) -> Bool[Tensor, "B H T"]:
    """Return the highest-scored `share` of the marked tokens, the earlier of equals first."""
    order = scores.masked_fill(~among, -torch.inf).argsort(dim=-1, descending=True, stable=True)
    count = (among.sum(-1, keepdim=True).float() * share).round()
    return among & (inverse(order) < count)

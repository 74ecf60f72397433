"""What does not stay is folded into the kept token with the most similar key."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from foveate.option import Choice, Flag, check_choice, check_flag
from foveate.reduce.evict import pack
from foveate.reduce.match import nearest_key
from foveate.types import Bool, Float, Int, LayerKV, Observation

__all__ = ["Fold", "folded", "received"]

RULES = ("averaged", "pivotal", "weighted")
ENTRIES = ("auto", "values", "both")


@dataclass(frozen=True, slots=True)
class Fold:
    """Every dropped token e goes to the kept one c of its head whose key has the highest cosine s.

    With n tokens that go to c, the entry x[c] becomes `(x[c] + sum_e y[e]) / (n + 1)`, where y[e]
    is `x[e]` ("averaged"), `(x[e] + x[c]) / 2` ("pivotal") or `s[e] * x[e]` ("weighted"). Kept
    tokens of any kind receive, or with `within_modality` text from text and images from images.

    `entries` says what changes: "values", "both" values and keys, or "auto": both, but values alone
    where images have positions in a grid. An average of keys that were rotated at different
    positions is no rotated key; with positions in a grid the three axes mix besides.
    """

    rule: Choice = "pivotal"
    entries: Choice = "auto"
    within_modality: Flag = False

    def __post_init__(self) -> None:
        check_choice("rule", self.rule, RULES)
        check_choice("entries", self.entries, ENTRIES)
        check_flag("within_modality", self.within_modality)

    def __call__(
        self,
        observation: Observation,
        scores: Float[Tensor, "B H T"],
        keep: Bool[Tensor, "B H T"],
    ) -> LayerKV:
        """Return the kept keys and values, with what was folded into them."""
        kinds, keys = observation.kinds, observation.keys
        apart = (kinds.visual, kinds.text) if self.within_modality else (kinds.valid,)
        giving = torch.zeros_like(keep)
        target = torch.zeros_like(keep, dtype=torch.long)
        weights = torch.zeros_like(keep, dtype=torch.float32)
        for members in apart:
            kept = keep & members[:, None]
            mine = members[:, None] & ~keep & kept.any(-1, keepdim=True)
            found, cosine = nearest_key(keys, kept, mine)
            giving, target = giving | mine, target + found
            weights = weights + (cosine if self.rule == "weighted" else mine.float())
        share = 0.5 if self.rule == "pivotal" else 0.0
        weights = weights * (1 - share)
        number = received(target, giving)
        values = folded(observation.values, target, giving, number, weights, share)
        if self.folds_keys(observation):
            keys = folded(keys, target, giving, number, weights, share)
        return pack(keys, values, keep)

    def folds_keys(self, observation: Observation) -> bool:
        """Return whether keys change, and not the values alone."""
        if self.entries == "auto":
            return observation.rotation is None or not observation.rotation.grid
        return self.entries == "both"


def received(target: Int[Tensor, "B H T"], giving: Bool[Tensor, "B H T"]) -> Int[Tensor, "B H T"]:
    """Return how many tokens go to every position."""
    return torch.zeros_like(target).scatter_add(-1, target, giving.long())


def folded(
    entries: Float[Tensor, "B H T D"],
    target: Int[Tensor, "B H T"],
    giving: Bool[Tensor, "B H T"],
    number: Int[Tensor, "B H T"],
    weights: Float[Tensor, "B H T"] | None = None,
    share: float = 0.0,
) -> Float[Tensor, "B H T D"]:
    """Return the entries; one that receives from n others is `(x + sum of gifts) / (n + 1)`.

    A gift is `share` of the receiver and `weights` (1, if None) of the giver. What receives nothing
    keeps every bit.
    """
    index = target[..., None].expand_as(entries)
    gifts = entries.float().masked_fill(~giving[..., None], 0)
    gifts = gifts if weights is None else gifts * weights[..., None]
    sums = torch.zeros_like(gifts).scatter_add_(2, index, gifts)
    count = number[..., None].float()
    mean = (entries.float() * (1 + count * share) + sums) / (1 + count)
    return torch.where(number[..., None] > 0, mean.to(entries.dtype), entries)

"""Scores that look at no attention: what every method has to beat."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from foveate.option import Count, check_count
from foveate.types import Int, Observation, Ranking, TokenKinds

__all__ = ["Constant", "Random", "Recency"]

MASK = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Constant:
    """All tokens are worth the same; the earlier ones stay."""

    def rows(self, kinds: TokenKinds) -> None:
        """Return None: no query is read."""

    def __call__(self, observation: Observation, tiers: Int[Tensor, "B T"]) -> Ranking:
        """Return zeros."""
        B, H, T = observation.keys.shape[:3]
        scores = torch.zeros(1, 1, 1, device=tiers.device).expand(B, H, T)
        return Ranking(scores, tiers, observation.layer)


@dataclass(frozen=True, slots=True)
class Recency:
    """The later a token, the more it is worth."""

    def rows(self, kinds: TokenKinds) -> None:
        """Return None: no query is read."""

    def __call__(self, observation: Observation, tiers: Int[Tensor, "B T"]) -> Ranking:
        """Return the position in the row, pads not counted."""
        place = observation.kinds.valid.cumsum(-1).float()
        scores = place[:, None].expand(-1, observation.keys.shape[1], -1)
        return Ranking(scores, tiers, observation.layer)


@dataclass(frozen=True, slots=True)
class Random:
    """A number in [0, 1] that only `seed`, layer, head and position (pads not counted) decide."""

    seed: Count = 0

    def __post_init__(self) -> None:
        check_count("seed", self.seed)

    def rows(self, kinds: TokenKinds) -> None:
        """Return None: no query is read."""

    def __call__(self, observation: Observation, tiers: Int[Tensor, "B T"]) -> Ranking:
        """Return the numbers."""
        place = observation.kinds.valid.cumsum(-1)[:, None]  # [B, 1, T]
        H, group = observation.keys.shape[1], observation.group
        first = 0 if group is None else group.rank * H
        heads = torch.arange(first, first + H, device=place.device)[None, :, None]
        stream = scrambled(torch.full_like(heads, self.seed & MASK) ^ (self.seed >> 32 & MASK))
        stream = scrambled(stream + observation.layer * 0x9E3779B1 & MASK)
        stream = scrambled(stream + heads * 0x85EBCA6B & MASK)
        scores = scrambled(stream + place * 0xC2B2AE35 & MASK) / MASK
        return Ranking(scores.float(), tiers, observation.layer)


def scrambled(number: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
    """Return 32-bit numbers without any trace of their order (a multiply-and-shift hash)."""
    for _ in range(2):
        number = ((number >> 16) ^ number) * 0x45D9F3B & MASK
    return (number >> 16) ^ number

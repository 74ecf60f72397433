"""Scopes that ask what a token is: text or image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from foveate.option import Count, check_count
from foveate.types import PAD, Bool, Int, TokenKinds

__all__ = ["All", "Visual", "VisualFirst"]

FIRST, LAST, NEVER = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Visual:
    """Visual tokens may go, text stays."""

    def tiers(self, kinds: TokenKinds) -> Int[Tensor, "B T"]:
        """Return 0 for visual tokens, 2 for text, -1 for pads."""
        return torch.where(kinds.visual, FIRST, NEVER).masked_fill(~kinds.valid, PAD)


@dataclass(frozen=True, slots=True)
class All:
    """Every token may go but the first `sinks` and the last `recent` of its row."""

    sinks: Count = 0
    recent: Count = 0

    def __post_init__(self) -> None:
        check_count("sinks", self.sinks)
        check_count("recent", self.recent)

    def tiers(self, kinds: TokenKinds) -> Int[Tensor, "B T"]:
        """Return 0 for what may go, 2 for sinks and recent tokens, -1 for pads."""
        stays = at_the_ends(kinds, self.sinks, self.recent)
        return torch.where(stays, NEVER, FIRST).masked_fill(~kinds.valid, PAD)


@dataclass(frozen=True, slots=True)
class VisualFirst:
    """Text goes only when no visual token is left; `sinks` and `recent` tokens stay."""

    sinks: Count = 0
    recent: Count = 0

    def __post_init__(self) -> None:
        check_count("sinks", self.sinks)
        check_count("recent", self.recent)

    def tiers(self, kinds: TokenKinds) -> Int[Tensor, "B T"]:
        """Return 0 for visual tokens, 1 for text, 2 for sinks and recent tokens, -1 for pads."""
        tiers = torch.where(kinds.visual, FIRST, LAST)
        tiers = tiers.masked_fill(at_the_ends(kinds, self.sinks, self.recent), NEVER)
        return tiers.masked_fill(~kinds.valid, PAD)


def at_the_ends(kinds: TokenKinds, sinks: int, recent: int) -> Bool[Tensor, "B T"]:
    """Return the first `sinks` and the last `recent` tokens of every row, pads not counted."""
    seen = kinds.valid.cumsum(-1)
    return kinds.valid & ((seen <= sinks) | (seen > seen[:, -1:] - recent))

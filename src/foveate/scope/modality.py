"""Scopes that ask what a token is: text or image."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral

import torch
from torch import Tensor

from foveate.option import (
    Choice,
    Count,
    check_choice,
    check_count,
    check_share,
)
from foveate.types import GOES_FIRST, GOES_LAST, PAD, PINNED, STAYS, Bool, Int, TokenKinds

__all__ = ["All", "Visual", "VisualFirst"]

RECENT_OF = ("any", "text")
TINY = 1e-6  # a share of a whole number is that number, whatever the last digits say


@dataclass(frozen=True, slots=True)
class Visual:
    """Visual tokens may go, text stays."""

    def tiers(
        self, kinds: TokenKinds, prompt: Int[Tensor, " B"] | None = None
    ) -> Int[Tensor, "B T"]:
        """Return 0 for visual tokens, 2 for text, -1 for pads."""
        return torch.where(kinds.visual, GOES_FIRST, STAYS).masked_fill(~kinds.valid, PAD)


@dataclass(frozen=True, slots=True)
class All:
    """Every token may go but the first `sinks` and the last `recent`, which the budget includes.

    `recent` is a number of tokens, or as a float the share of the prompt. With `recent_of="text"`
    the recent tokens are the last ones of the text behind the last image.
    """

    sinks: Count = 0
    recent: Count | float = 0
    recent_of: Choice = "any"

    def __post_init__(self) -> None:
        check_ends(self.sinks, self.recent, self.recent_of)

    def tiers(
        self, kinds: TokenKinds, prompt: Int[Tensor, " B"] | None = None
    ) -> Int[Tensor, "B T"]:
        """Return 0 for what may go, 3 for sinks and recent tokens, -1 for pads."""
        stays = at_the_ends(kinds, self.sinks, self.recent, self.recent_of, prompt)
        return torch.where(stays, PINNED, GOES_FIRST).masked_fill(~kinds.valid, PAD)


@dataclass(frozen=True, slots=True)
class VisualFirst:
    """Text goes only when no visual token is left; otherwise as `All`."""

    sinks: Count = 0
    recent: Count | float = 0
    recent_of: Choice = "any"

    def __post_init__(self) -> None:
        check_ends(self.sinks, self.recent, self.recent_of)

    def tiers(
        self, kinds: TokenKinds, prompt: Int[Tensor, " B"] | None = None
    ) -> Int[Tensor, "B T"]:
        """Return 0 for visual tokens, 1 for text, 3 for sinks and recent tokens, -1 for pads."""
        tiers = torch.where(kinds.visual, GOES_FIRST, GOES_LAST)
        stays = at_the_ends(kinds, self.sinks, self.recent, self.recent_of, prompt)
        return tiers.masked_fill(stays, PINNED).masked_fill(~kinds.valid, PAD)


def check_ends(sinks: object, recent: object, recent_of: object) -> None:
    """Raise `MethodError` for numbers or words that name no ends."""
    check_count("sinks", sinks)
    check_choice("recent_of", recent_of, RECENT_OF)
    if isinstance(recent, float):
        check_share("recent", recent)
    else:
        check_count("recent", recent)


def at_the_ends(
    kinds: TokenKinds,
    sinks: int,
    recent: int | float,
    recent_of: str = "any",
    prompt: Int[Tensor, " B"] | None = None,
) -> Bool[Tensor, "B T"]:
    """Return the first `sinks` and the last `recent` tokens of every row, pads not counted."""
    seen = kinds.valid.cumsum(-1)
    sinks = min(sinks, seen.shape[-1])  # larger numbers than tensors hold are numbers, too
    length = seen[:, -1:] if prompt is None else prompt[:, None].to(seen.device)
    whole = isinstance(recent, Integral)
    count = min(recent, seen.shape[-1]) if whole else (length * recent + TINY).floor().long()
    among = kinds.valid & (seen > seen[:, -1:] - count)
    if recent_of == "text":
        behind = kinds.text & (kinds.visual.flip(-1).cumsum(-1).flip(-1) == 0)
        number = behind.cumsum(-1)
        among = behind & (number > number[:, -1:] - count)
    return kinds.valid & ((seen <= sinks) | among)

"""Windows: the tokens whose queries say what matters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from foveate.errors import InputError
from foveate.group import all_heads
from foveate.option import Choice, Count, Flag, check_choice, check_count, check_flag
from foveate.types import Bool, Int, Observation, TokenKinds

__all__ = ["AllText", "LastRows", "LastVisual", "Selection", "Window", "of_all_heads"]

FALLBACK = 32  # rows taken where a prompt has no instruction behind its last image
INSTRUCTIONS = ("after_last_visual", "after_first_visual", "all_text", "all_text_but_sink")
OBSERVERS = (*INSTRUCTIONS, "any")


@dataclass(frozen=True, eq=False)
class Selection:
    """The members of a window, for all query heads or for each, and where a stand-in was taken."""

    members: Bool[Tensor, "B X T"]  # X is 1 or Hq
    fallback: Bool[Tensor, " B"]

    def at(self, rows: Int[Tensor, "B R"]) -> Bool[Tensor, "B X R"]:
        """Return which of the query rows are members."""
        wide = rows.clamp(min=0)[:, None].expand(-1, self.members.shape[1], -1)
        return self.members.gather(-1, wide) & (rows >= 0)[:, None]


@runtime_checkable
class Window(Protocol):
    """Which tokens observe."""

    def rows(self, kinds: TokenKinds) -> Bool[Tensor, "B T"]:
        """Return every token whose query may be needed."""

    def __call__(self, observation: Observation) -> Selection:
        """Return the members of the window in one layer."""


@dataclass(frozen=True, slots=True)
class AllText:
    """Every instruction token, as `text` says; `exclude_special` leaves template tokens out.

    With `text="any"` every token of the prompt observes, image or not.

    A prompt without an instruction is observed by its last 32 visual tokens (without any, by its
    last 32 tokens), and the statistic "fallback" says so.
    """

    text: Choice = "after_last_visual"
    exclude_special: Flag = False

    def __post_init__(self) -> None:
        check_choice("text", self.text, OBSERVERS)
        check_flag("exclude_special", self.exclude_special)

    def rows(self, kinds: TokenKinds) -> Bool[Tensor, "B T"]:
        """Return the instruction tokens, or their stand-in."""
        return stand_in(kinds, instruction(kinds, self.text, self.exclude_special))[0]

    def __call__(self, observation: Observation) -> Selection:
        """Return all instruction tokens."""
        text = instruction(observation.kinds, self.text, self.exclude_special)
        return observed(observation, *stand_in(observation.kinds, text))


@dataclass(frozen=True, slots=True)
class LastRows:
    """The last `count` instruction tokens; otherwise as `AllText`."""

    count: Count = 32
    text: Choice = "after_last_visual"
    exclude_special: Flag = False

    def __post_init__(self) -> None:
        check_count("count", self.count, least=1)
        check_choice("text", self.text, OBSERVERS)
        check_flag("exclude_special", self.exclude_special)

    def rows(self, kinds: TokenKinds) -> Bool[Tensor, "B T"]:
        """Return the last instruction tokens, or their stand-in."""
        return self.choose(kinds)[0]

    def __call__(self, observation: Observation) -> Selection:
        """Return the last instruction tokens."""
        return observed(observation, *self.choose(observation.kinds))

    def choose(self, kinds: TokenKinds) -> tuple[Bool[Tensor, "B T"], Bool[Tensor, " B"]]:
        """Return the last instruction tokens and where a stand-in was taken."""
        text = instruction(kinds, self.text, self.exclude_special)
        return stand_in(kinds, last(text, self.count))


@dataclass(frozen=True, slots=True)
class LastVisual:
    """The last `count` visual tokens; where there is none, the last tokens."""

    count: Count = 32

    def __post_init__(self) -> None:
        check_count("count", self.count, least=1)

    def rows(self, kinds: TokenKinds) -> Bool[Tensor, "B T"]:
        """Return the last visual tokens."""
        return stand_in(kinds, last(kinds.visual, self.count))[0]

    def __call__(self, observation: Observation) -> Selection:
        """Return the last visual tokens."""
        kinds = observation.kinds
        return observed(observation, *stand_in(kinds, last(kinds.visual, self.count)))


def instruction(kinds: TokenKinds, text: str, exclude_special: bool) -> Bool[Tensor, "B T"]:
    """Return the text tokens that count as the instruction."""
    place = torch.arange(kinds.kind.shape[-1], device=kinds.kind.device)
    if text == "after_last_visual":
        region = place > torch.where(kinds.visual, place, -1).amax(-1, keepdim=True)
    elif text == "after_first_visual":
        region = kinds.visual.cumsum(-1) > 0
    elif text == "all_text_but_sink":
        region = kinds.valid.cumsum(-1) > 1
    else:
        region = torch.ones_like(kinds.text)
    chosen = kinds.valid if text == "any" else kinds.text & region
    return chosen & ~kinds.special if exclude_special else chosen


def last(members: Bool[Tensor, "B T"], count: int) -> Bool[Tensor, "B T"]:
    """Return the last `count` members of every row."""
    seen = members.cumsum(-1)
    return members & (seen > seen[:, -1:] - min(count, members.shape[-1]))


def stand_in(
    kinds: TokenKinds, members: Bool[Tensor, "B T"]
) -> tuple[Bool[Tensor, "B T"], Bool[Tensor, " B"]]:
    """Return the members and False, or in a row without any the last visual tokens and True."""
    missing = ~members.any(-1)
    visual = kinds.visual.any(-1, keepdim=True)
    instead = last(torch.where(visual, kinds.visual, kinds.valid), FALLBACK)
    return torch.where(missing[:, None], instead, members), missing


def observed(
    observation: Observation, members: Bool[Tensor, "B T"], fallback: Bool[Tensor, " B"]
) -> Selection:
    """Return the selection, after making sure that the query of every member is there."""
    selection = Selection(members[:, None], fallback)
    found, wanted = selection.at(observation.rows).sum(), members.sum()
    if int(found) != int(wanted):
        raise InputError(
            f"the observation of layer {observation.layer} has the queries of {int(found)} of the "
            f"{int(wanted)} tokens that the window needs; capture all that "
            "`method.score.rows(kinds)` names"
        )
    return selection


def of_all_heads(part: Tensor, observation: Observation) -> Tensor:
    """Return [B, X, ...] of the windows of all heads; a window for all of them is alike anyway."""
    shared = part.shape[1] == 1 < observation.queries.shape[1]
    return part if shared else all_heads(part, observation.group)

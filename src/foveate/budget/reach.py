"""As many tokens as it takes: budgets that end where a share of the attention is held."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from foveate.budget.bound import bounded
from foveate.budget.once import once
from foveate.budget.total import supply
from foveate.errors import MethodError
from foveate.group import all_heads, own_heads
from foveate.line import places
from foveate.method import everything
from foveate.option import Choice, Share, check_choice, check_share
from foveate.types import PAD, PINNED, STAYS, Bool, Float, Int, Ranking

__all__ = ["Reach"]

OVER = ("layer", "head", "model")
ROUNDING = 1e-7  # of the mass: a share is reached up to this


class Lines(NamedTuple):
    """Tokens that go by higher order, then score, then lower ties; those of order -1 do not."""

    scores: Float[Tensor, "B X n"]
    order: Int[Tensor, "B X n"]
    mass: Float[Tensor, "B X n"]
    ties: Int[Tensor, "B n"]


@dataclass(frozen=True, slots=True)
class Reach:
    """The fewest tokens, in the order of the ranking, that hold the share `mass` of its mass.

    What may go counts alone, by the ranking's mass (or its scores). `over`: the tokens of a layer's
    heads are in one line and hold that share of the layer's mass ("layer"), every head holds it
    ("head"), or the tokens of all layers are in one line ("model"). With a mass of 1 all stay.
    """

    mass: Share = 0.95
    over: Choice = "layer"

    def __post_init__(self) -> None:
        check_share("mass", self.mass)
        if not self.mass:
            raise MethodError("mass=0 keeps nothing; give a number above 0 and up to 1")
        check_choice("over", self.over, OVER)

    @property
    def keep(self) -> float:
        """Return the share of the mass; 1.0 is all tokens, as it is of every budget."""
        return float(self.mass)

    def __call__(self, rankings: Sequence[Ranking]) -> Int[Tensor, "N B H"]:
        """Return the counts of kept candidates."""
        device = rankings[0].scores.device
        if self.keep >= 1:
            return torch.stack([everything(ranking).to(device) for ranking in rankings])
        if self.over == "model":
            found = together(rankings, self.keep)
        else:
            found = [enough(ranking, self.keep, self.over) for ranking in rankings]
        pinned = supply(rankings).pinned.t()[..., None].to(device)
        return torch.stack([x.to(device) for x in found]) + pinned

    def bounds(self, rankings: Sequence[Ranking], layers: int) -> Int[Tensor, "m B H"] | None:
        """Return the counts themselves; nothing is known of lines that later layers join."""
        if self.over == "model":
            return bounded(self, rankings, layers, lambda tokens: None)
        return self(rankings).cpu()


def reached(lines: Lines, share: float) -> Bool[Tensor, "B X n"]:
    """Return the first of every line, as few as hold the share of the line's mass.

    Where nothing in a line has any mass, all have the same.
    """
    place, there = places(lines.scores, lines.order, lines.ties), lines.order >= 0
    mass = lines.mass.clamp(min=0).masked_fill(~there, 0).cpu().double()
    whole = mass.sum(-1, keepdim=True)
    mass = torch.where(whole > 0, mass, there.cpu().double())
    held = torch.zeros_like(mass).scatter(-1, place.cpu(), mass).cumsum(-1)
    wanted = share * (1 - ROUNDING) * held[..., -1:]
    count = (held < wanted).sum(-1, keepdim=True) + 1
    return (place < count.to(place.device)) & there


def of_heads(ranking: Ranking) -> Lines:
    """Return a line for every head of this process."""
    tiers = ranking.tiers if ranking.tiers.ndim == 3 else ranking.tiers[:, None]
    order = tiers.masked_fill((tiers == STAYS) | (tiers == PINNED), PAD)
    scores, mass, ties = ranking.scores, ranking.mass, ranking.ties
    if ties is None:
        ties = torch.arange(scores.shape[-1], device=scores.device).expand(len(scores), -1)
    mass = scores if mass is None else mass
    return Lines(scores, order.expand_as(scores), mass, ties)


def of_layer(ranking: Ranking) -> Lines:
    """Return one line of all heads, that of the first head first where all else is equal."""
    own = of_heads(ranking)
    scores, order, mass = (all_heads(x, ranking.group) for x in own[:3])
    H = scores.shape[1]
    ties = own.ties[:, None] * H + torch.arange(H, device=own.ties.device)[:, None]
    return Lines(
        scores.flatten(1)[:, None],
        order.flatten(1)[:, None],
        mass.flatten(1)[:, None],
        ties.flatten(1),
    )


def by_head(kept: Bool[Tensor, "B one n"], ranking: Ranking) -> Int[Tensor, "B h"]:
    """Return how many tokens of a layer's line the heads of this process have."""
    found = kept.unflatten(-1, (-1, ranking.scores.shape[-1]))[:, 0].sum(-1)
    return own_heads(found, ranking.group)


@once
def enough(ranking: Ranking, share: float, over: str) -> Int[Tensor, "B h"]:
    """Return the counts of one layer's heads of this process."""
    if over == "layer":
        return by_head(reached(of_layer(ranking), share), ranking)
    return reached(of_heads(ranking), share).sum(-1)


def together(rankings: Sequence[Ranking], share: float) -> list[Int[Tensor, "B h"]]:
    """Return the counts of the layers' heads of this process, all layers being in one line."""
    lines = [of_layer(ranking) for ranking in rankings]
    device = lines[0].scores.device
    joined = Lines(
        *(torch.cat([x.to(device) for x in part], -1) for part in zip(*lines, strict=True))
    )
    kept = reached(joined, share).split([x.order.shape[-1] for x in lines], -1)
    return [by_head(part, ranking) for part, ranking in zip(kept, rankings, strict=True)]

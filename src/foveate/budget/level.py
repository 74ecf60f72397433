"""Layers keep what holds the same share of their mass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from foveate.budget.bound import bounded
from foveate.budget.once import once
from foveate.budget.total import Supply, head_equal, supply
from foveate.group import all_heads
from foveate.option import Keep, plain_keep
from foveate.order import inverse
from foveate.types import Float, Int, Ranking

__all__ = ["Level", "sizes"]

HALVINGS = 64
ROUNDING = 1e-7  # of the mass: a level is reached up to this
BEYOND = 2.0  # more than all of the mass


@dataclass(frozen=True, slots=True)
class Level:
    """In every layer the fewest tokens that hold the share p of its scores, p being one for all.

    What may go counts alone, by its scores averaged over the heads (or by the ranking's mass). Of
    the levels p whose counts fit into the budget the highest is taken; what it leaves goes token by
    token to the layer whose next token brings it to the lowest share, the earlier one of two.
    """

    keep: Keep

    def __post_init__(self) -> None:
        object.__setattr__(self, "keep", plain_keep(self.keep))

    def __call__(self, rankings: Sequence[Ranking]) -> Int[Tensor, "N B H"]:
        """Return the counts of kept candidates."""
        tokens = supply(rankings)
        held = torch.stack([cumulated(ranking) for ranking in rankings], 1)
        counts = sizes(held, tokens.going, tokens.base(self.keep))
        return head_equal(tokens.with_pinned(self.keep, counts), rankings)

    def bounds(self, rankings: Sequence[Ranking], layers: int) -> Int[Tensor, "m B H"] | None:
        """Return what the known layers keep if no other takes any, and one token more.

        In line by the share that a token completes, what is kept of the known layers lies among the
        first tokens, as many as there is budget, but for the last of each layer, which reaches the
        level; and a layer more only takes places in that line.
        """

        def known(tokens: Supply) -> Int[Tensor, "B m"]:
            total = tokens.base(self.keep)
            held = torch.stack([cumulated(ranking) for ranking in rankings], 1)
            counts = (among_first(held, total) + 1).minimum(total[:, None])
            counts = counts.minimum(tokens.going[:, : len(rankings)])
            return tokens.with_pinned(self.keep, counts)

        return bounded(self, rankings, layers, known)


@once
def cumulated(ranking: Ranking) -> Float[Tensor, "B T"]:
    """Return the share that the best 1, 2, ... candidates hold, in host memory and double."""
    mass = ranking.scores if ranking.mass is None else ranking.mass
    mass, may_go = all_heads(mass, ranking.group).mean(1), ranking.candidates
    may_go = may_go if may_go.ndim == 2 else may_go[:, 0]
    # Sorted as float32 on its device, which is quick; summed in double, which not all have.
    mass = mass.clamp(min=0).masked_fill(~may_go, -1).sort(dim=-1, descending=True).values
    mass = mass.cpu().double()
    there = mass >= 0
    number = there.sum(-1, keepdim=True)
    mass = mass.clamp(min=0)
    whole = mass.sum(-1, keepdim=True)
    equal = 1 / number.clamp(min=1).double()
    shares = torch.where(whole > 0, mass / whole.masked_fill(whole == 0, 1), equal)
    return shares.cumsum(-1).masked_fill(~there, BEYOND)


def among_first(held: Float[Tensor, "B m T"], total: Int[Tensor, " B"]) -> Int[Tensor, "B m"]:
    """Return how many of each layer's shares are among the `total` lowest, the earlier of two."""
    places = total.clamp(max=held[0].numel()).tolist()
    last = [
        row.flatten().kthvalue(place).values if place else row.new_tensor(-1.0)
        for row, place in zip(held, places, strict=True)
    ]
    wanted = torch.stack(last)[:, None, None].expand(*held.shape[:2], 1).contiguous()
    lower = torch.searchsorted(held, wanted)[..., 0]
    equal = torch.searchsorted(held, wanted, right=True)[..., 0] - lower
    left = total - lower.sum(-1)
    return lower + (left[:, None] - (equal.cumsum(-1) - equal)).clamp(min=0).minimum(equal)


def sizes(
    held: Float[Tensor, "B N T"], there: Int[Tensor, "B N"], total: Int[Tensor, " B"]
) -> Int[Tensor, "B N"]:
    """Return how many of the `there` tokens each layer keeps: `total` in all, at one level."""
    zero = torch.zeros_like(held[..., :1])
    held = torch.cat([zero, held], -1).contiguous()

    def reaching(level: Float[Tensor, " B"]) -> Int[Tensor, "B N"]:
        wanted = (level - ROUNDING)[:, None, None].expand(*held.shape[:2], 1).contiguous()
        return torch.searchsorted(held, wanted)[..., 0].minimum(there)

    def fits(level: Float[Tensor, " B"]) -> Tensor:
        return reaching(level).sum(-1) <= total

    low = torch.zeros(held.shape[0], dtype=held.dtype)
    high = torch.ones_like(low)
    low = torch.where(fits(high), high, low)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        fit = fits(middle)
        low, high = torch.where(fit, middle, low), torch.where(fit, high, middle)
    counts = reaching(low)
    left = total.minimum(there.sum(-1)) - counts.sum(-1)
    if not bool((left > 0).any()):
        return counts
    place = torch.arange(held.shape[-1])
    waiting = (place > counts[..., None]) & (place <= there[..., None])
    order = held.masked_fill(~waiting, BEYOND).flatten(1).argsort(dim=-1, stable=True)
    return counts + (inverse(order) < left[:, None]).unflatten(-1, held.shape[1:]).sum(-1)

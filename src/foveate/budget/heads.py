"""Budgets of heads: the tokens of a layer are shared by what its heads look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from foveate.budget.total import supply
from foveate.group import all_heads, own_heads
from foveate.kernels.allocate import round_to
from foveate.method import Budget
from foveate.option import Choice, Flag, Share, check_choice, check_flag, check_share
from foveate.types import Float, Int, Ranking

__all__ = ["PooledHeads"]


@dataclass(frozen=True, slots=True)
class PooledHeads:
    """Heads of a layer get what they hold of the layer's best H * b tokens, b being its budget.

    Of what may go head h gets `(1 - alpha) * n[h] + alpha * b`, where n[h] of the best H * b scores
    over all heads (or of the ranking's mass) are its own; equal ones go to the earlier head, then
    position. `normalize` multiplies a head's scores by the share of them that its b best hold
    before they are compared. `rounding`: whole numbers with the sum H * b ("exact"), or each
    `round((1 - alpha) * n[h] + floor(alpha * b))` ("official").
    """

    layers: Budget
    alpha: Share = 0.2
    normalize: Flag = False
    rounding: Choice = "exact"

    def __post_init__(self) -> None:
        check_share("alpha", self.alpha)
        check_flag("normalize", self.normalize)
        check_choice("rounding", self.rounding, ("exact", "official"))

    @property
    def keep(self) -> float | int:
        """Return the share or number of tokens of the budget inside."""
        return self.layers.keep

    def __call__(self, rankings: Sequence[Ranking]) -> Int[Tensor, "N B H"]:
        """Return the counts of kept candidates."""
        counts = self.layers(rankings)
        tokens = supply(rankings)
        even = counts[..., 0].cpu()
        base = (even - tokens.pinned.t()).clamp(min=0)
        shares = [
            self.heads(pool(ranking, b, self.normalize), b, tokens.going[:, layer])
            for layer, (ranking, b) in enumerate(zip(rankings, base, strict=True))
        ]
        shared = torch.stack(shares) + (even - base)[..., None]
        return own_heads(shared, rankings[0].group).to(counts.device)

    def heads(
        self, found: Int[Tensor, "B H"], base: Int[Tensor, " B"], there: Int[Tensor, " B"]
    ) -> Int[Tensor, "B H"]:
        """Return how many tokens every head keeps of what may go."""
        H = found.shape[-1]
        part, cap = found.double() * (1 - self.alpha), there[:, None].expand_as(found)
        if self.rounding == "official":
            floor = (self.alpha * base.double()).floor()[:, None]
            return (part + floor).round().long().minimum(cap)
        shares = part + self.alpha * base.double()[:, None]
        return round_to(shares, H * base, cap, torch.zeros_like(cap))


def pool(ranking: Ranking, base: Int[Tensor, " B"], normalize: bool) -> Int[Tensor, "B H"]:
    """Return how many of the best `H * base` tokens of all heads each head has, in host memory."""
    mass = ranking.scores if ranking.mass is None else ranking.mass
    may_go, mass = ranking.candidates, all_heads(mass, ranking.group)
    may_go = all_heads(may_go, ranking.group) if may_go.ndim == 3 else may_go[:, None]
    may_go = may_go.expand_as(mass)
    base = base.to(mass.device)
    H, T = mass.shape[1:]
    if normalize:
        mass = mass * held(mass, may_go, base)[..., None]
    mass = mass.masked_fill(~may_go, -torch.inf)
    order = mass.flatten(1).argsort(dim=-1, descending=True, stable=True)
    chosen = torch.arange(H * T, device=mass.device) < H * base[:, None]
    owner = order // max(T, 1)
    found = torch.zeros(len(mass), H, dtype=torch.long, device=mass.device)
    return found.scatter_add_(-1, owner, chosen.long()).cpu()


def held(
    mass: Float[Tensor, "B H T"], may_go: Tensor, base: Int[Tensor, " B"]
) -> Float[Tensor, "B H"]:
    """Return which share of every head's mass its `base` best tokens hold."""
    mass = mass.masked_fill(~may_go, 0)
    ranked = mass.masked_fill(~may_go, -torch.inf).sort(dim=-1, descending=True).values
    best = torch.arange(mass.shape[-1], device=mass.device) < base[:, None, None]
    wide = mass.dtype if mass.device.type == "mps" else torch.float64
    top = ranked.masked_fill(~best | ranked.isinf(), 0).sum(-1, dtype=wide)
    whole = mass.sum(-1, dtype=wide)
    return torch.where(whole == 0, 1, top / whole.masked_fill(whole == 0, 1))

"""Budgets of heads: the tokens of a layer are shared by what its heads look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from foveate.budget.bound import Given, above, inner_bounds
from foveate.budget.once import once
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
        return self.shared(rankings, counts[..., 0].cpu()).to(counts.device)

    def bounds(self, rankings: Sequence[Ranking], layers: int) -> Int[Tensor, "m B H"] | None:
        """Return the counts for the bounds of the layers, as a layer's best only grow with them.

        The counts themselves, if layers have known budgets. Otherwise every head's share is rounded
        up; with `normalize`, which weighs heads anew for every budget, all may be of one head.
        """
        even = inner_bounds(self.layers, rankings, layers)
        if even is None:
            return None
        exact = isinstance(self.layers, Given) or len(rankings) >= layers
        return self.shared(rankings, even[..., 0], most=not exact)

    def shared(
        self, rankings: Sequence[Ranking], even: Int[Tensor, "N B"], most: bool = False
    ) -> Int[Tensor, "N B H"]:
        """Return the counts of layers that have `even` tokens per head, or upper bounds of them."""
        tokens, group = supply(rankings), rankings[0].group
        base = (even - tokens.pinned.t()).clamp(min=0)
        there = tokens.going.t()
        found = torch.stack(
            [
                pool(ranking, tuple(b), self.normalize)
                for ranking, b in zip(rankings, base.tolist(), strict=True)
            ]
        )
        if most and self.normalize:
            H = found.shape[-1]
            found = (H * base).minimum(there)[..., None].expand_as(found)
        return own_heads(self.heads(found, base, there, most) + (even - base)[..., None], group)

    def heads(
        self,
        found: Int[Tensor, "N B H"],
        base: Int[Tensor, "N B"],
        there: Int[Tensor, "N B"],
        most: bool = False,
    ) -> Int[Tensor, "N B H"]:
        """Return how many tokens every head keeps of what may go, or an upper bound."""
        H = found.shape[-1]
        part, cap = found.double() * (1 - self.alpha), there[..., None].expand_as(found)
        if self.rounding == "official":
            floor = (self.alpha * base.double()).floor()[..., None]
            return (part + floor).round().long().minimum(cap)
        shares = part + self.alpha * base.double()[..., None]
        if most:
            return above(shares, cap)
        return round_to(shares, H * base, cap, torch.zeros_like(cap))


@once
def compared(ranking: Ranking) -> Float[Tensor, "B H T"]:
    """Return what all heads are compared by, those of other processes too, which send it once."""
    return all_heads(ranking.scores if ranking.mass is None else ranking.mass, ranking.group)


@once
def pool(ranking: Ranking, given: tuple[int, ...], normalize: bool) -> Int[Tensor, "B H"]:
    """Return how many of a row's best `H * given` tokens each head has, in host memory."""
    may_go, mass = ranking.candidates, compared(ranking)
    may_go = all_heads(may_go, ranking.group) if may_go.ndim == 3 else may_go[:, None]
    may_go = may_go.expand_as(mass)
    base = torch.tensor(given, device=mass.device)
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

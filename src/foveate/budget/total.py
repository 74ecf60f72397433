"""How many tokens `keep` is, and how a total becomes counts: the same for every budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral

import torch
from torch import Tensor

from foveate.budget.once import once
from foveate.kernels.allocate import allocate
from foveate.types import Float, Int, Ranking

__all__ = ["Supply", "head_equal", "spread", "supply", "totals"]

MOST = 1 << 40  # more tokens than any prompt has; larger numbers do not fit into tensors


@dataclass(frozen=True, eq=False)
class Supply:
    """How many tokens of every row and layer may go, and how many the budget has to hold."""

    going: Int[Tensor, "B N"]
    pinned: Int[Tensor, "B N"]

    def base(self, keep: float | int) -> Int[Tensor, " B"]:
        """Return how many of the tokens that may go stay, in one head over all layers."""
        return (totals(keep, self.going + self.pinned) - self.pinned.sum(-1)).clamp(min=0)

    def with_pinned(self, keep: float | int, counts: Int[Tensor, "B N"]) -> Int[Tensor, "B N"]:
        """Return counts of what may go with the pinned tokens, as far as the budget holds them.

        The counts may be those of the first layers alone.
        """
        m = counts.shape[-1]
        total = totals(keep, self.going + self.pinned)
        short = total < self.pinned.sum(-1)
        if not bool(short.any()):
            return counts + self.pinned[:, :m]
        even = torch.ones(self.pinned.shape)
        part = allocate(even, total, self.pinned, torch.zeros_like(self.pinned))[:, :m]
        return torch.where(short[:, None], part, counts + self.pinned[:, :m])


def supply(rankings: Sequence[Ranking]) -> Supply:
    """Return what there is, in host memory; heads have the same number of each."""
    return Supply(*torch.stack([counted(ranking) for ranking in rankings], -1).unbind(0))


@once
def counted(ranking: Ranking) -> Int[Tensor, "2 B"]:
    """Return how many tokens may go and how many are pinned."""
    marks = torch.stack([ranking.candidates, ranking.pinned])
    return (marks if marks.ndim == 3 else marks[:, :, 0]).sum(-1).cpu()


def totals(keep: float | int, tokens: Int[Tensor, "B N"]) -> Int[Tensor, " B"]:
    """Return how many tokens a row keeps in one head over all layers.

    A share gives `round(keep * V * N)` as Python rounds, a number of tokens `min(keep, V) * N`;
    where layers differ in V, the sums over layers take their place.
    """
    if isinstance(keep, Integral):
        return tokens.clamp(max=min(int(keep), MOST)).sum(-1)
    layers = tokens.shape[-1]
    even = (tokens == tokens[:, :1]).all(-1)
    # In the order of the formula, so that the rounding of the product is that of `keep * V * N`.
    product = tokens[:, 0].double() * float(keep) * layers
    return torch.where(even, product, tokens.sum(-1).double() * float(keep)).round().long()


def spread(
    keep: float | int,
    weights: Float[Tensor, "B N"],
    tokens: Supply,
    least: int | Int[Tensor, "B N"] = 0,
) -> Int[Tensor, "B N"]:
    """Return counts, pinned tokens included, whose rest is in proportion to weights.

    Of what may go a layer keeps `least` at least and all at most; where the total is less than the
    minima, the minima are what is kept.
    """
    floor = tokens.going.minimum(
        least if isinstance(least, Tensor) else torch.tensor(min(least, MOST))
    )
    counts = allocate(weights, tokens.base(keep), tokens.going, floor)
    return tokens.with_pinned(keep, counts)


def head_equal(counts: Int[Tensor, "B N"], rankings: Sequence[Ranking]) -> Int[Tensor, "N B H"]:
    """Return the counts for every key-value head alike, on the device of the first layer."""
    scores = rankings[0].scores
    return counts.to(scores.device).t()[..., None].expand(-1, -1, scores.shape[1])

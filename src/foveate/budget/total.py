"""How many tokens `keep` is, and how a total becomes counts: the same for every budget."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral

import torch
from torch import Tensor

from foveate.kernels.allocate import allocate
from foveate.types import Float, Int, Ranking

__all__ = ["candidate_counts", "head_equal", "spread", "totals"]

MOST = 1 << 40  # more tokens than any prompt has; larger numbers do not fit into tensors


def candidate_counts(rankings: Sequence[Ranking]) -> Int[Tensor, "B N"]:
    """Return the number of candidates per row and layer, in host memory."""
    return torch.stack([ranking.candidates.sum(-1).cpu() for ranking in rankings], -1)


def totals(keep: float | int, candidates: Int[Tensor, "B N"]) -> Int[Tensor, " B"]:
    """Return how many tokens a row keeps in one head over all layers.

    A share gives `round(keep * V * N)` as Python rounds, a number of tokens `min(keep, V) * N`;
    where layers differ in V, the sums over layers take their place.
    """
    if isinstance(keep, Integral):
        return candidates.clamp(max=min(int(keep), MOST)).sum(-1)
    layers = candidates.shape[-1]
    even = (candidates == candidates[:, :1]).all(-1)
    # In the order of the formula, so that the rounding of the product is that of `keep * V * N`.
    product = candidates[:, 0].double() * float(keep) * layers
    return torch.where(even, product, candidates.sum(-1).double() * float(keep)).round().long()


def spread(
    keep: float | int, weights: Float[Tensor, "B N"], candidates: Int[Tensor, "B N"], k_min: int
) -> Int[Tensor, "B N"]:
    """Return counts in proportion to weights, at least `k_min` and at most V in each layer.

    Where the total is less than the minima, the minima are what is kept.
    """
    floor = candidates.clamp(max=min(k_min, MOST))
    return allocate(weights, totals(keep, candidates), candidates, floor)


def head_equal(counts: Int[Tensor, "B N"], rankings: Sequence[Ranking]) -> Int[Tensor, "N B H"]:
    """Return the counts for every key-value head alike, on the device of the first layer."""
    scores = rankings[0].scores
    return counts.to(scores.device).t()[..., None].expand(-1, -1, scores.shape[1])

"""The tokens of a ranking in line, and what is kept for so many of them."""

from __future__ import annotations

import torch
from torch import Tensor

from foveate.order import inverse
from foveate.types import PAD, PINNED, STAYS, Bool, Float, Int, Ranking

__all__ = ["Line", "places", "select"]

LIFTED = 2  # between what goes last and what is pinned: chosen by a quota already


def select(ranking: Ranking, counts: Int[Tensor, "B H"]) -> Bool[Tensor, "B H T"]:
    """Return what is kept: all of tier 2, and the best `counts` of the rest.

    Pinned tokens come first (the newest of them), then what a quota names, then tier 1, then tier
    0. Equal scores are resolved towards the earlier position, or as `ranking.ties` says.
    """
    return Line(ranking).best(counts)


class Line:
    """The tokens of a ranking in line, for one choice after another; `select` says in which."""

    def __init__(self, ranking: Ranking) -> None:
        self.ranking = ranking
        self._places: Tensor | None = None

    def best(self, counts: Int[Tensor, "B H"]) -> Bool[Tensor, "B H T"]:
        """Return what is kept; of a larger count that is no less."""
        ranking = self.ranking
        tiers = ranking.tiers if ranking.tiers.ndim == 3 else ranking.tiers[:, None]
        if ranking.quota is not None:
            place = self._placed(with_quota(ranking, _order(tiers), counts))
        elif self._places is None:
            place = self._places = self._placed(_order(tiers))
        else:
            place = self._places
        return (place < counts.clamp(max=place.shape[-1])[..., None]) | (tiers == STAYS)

    def _placed(self, order: Int[Tensor, "B x T"]) -> Int[Tensor, "B y T"]:
        """Return the place of every token in line, T for those that are in none."""
        ranking = self.ranking
        # heads that rank alike are ranked once
        scores = ranking.scores if ranking.scores.stride(1) else ranking.scores[:, :1]
        place = places(scores, order, ranking.ties)
        return place.masked_fill(order < 0, place.shape[-1]).int()


def _order(tiers: Int[Tensor, "B h T"]) -> Int[Tensor, "B h T"]:
    """Return tiers in which nothing but what competes for the budget has a number."""
    return tiers.masked_fill(tiers == STAYS, PAD)


def with_quota(
    ranking: Ranking, order: Int[Tensor, "B h T"], counts: Int[Tensor, "B H"]
) -> Int[Tensor, "B H T"]:
    """Return the order with what the ranking's quota names of these counts lifted."""
    assert ranking.quota is not None
    left = (counts - (order == PINNED).sum(-1)).clamp(min=0)
    named = (counts * ranking.quota.share + 1e-6).floor().long().minimum(left)[..., None]
    going = order.masked_fill(order == PINNED, PAD)
    first = (going >= 0) & (places(ranking.quota.scores, going, ranking.ties) < named)
    return torch.where(first, LIFTED, order)


def places(
    scores: Float[Tensor, "B h T"], order: Int[Tensor, "B x T"], ties: Int[Tensor, "B T"] | None
) -> Int[Tensor, "B y T"]:
    """Return the place of every position: by higher `order`, then score, then earlier position.

    Positions with order -1 come last; pinned ones go by position, the newest first.
    """
    heads, T = max(scores.shape[1], order.shape[1]), scores.shape[-1]
    position = torch.arange(T, device=scores.device)
    scores = torch.where(order == PINNED, position.float(), scores)
    scores = scores.masked_fill(order < 0, -torch.inf).expand(-1, heads, -1)
    if ties is None:
        line = scores.argsort(dim=-1, descending=True, stable=True)
    else:
        first = ties.argsort(dim=-1, stable=True)[:, None].expand_as(scores)
        line = scores.gather(-1, first).argsort(dim=-1, descending=True, stable=True)
        line = first.gather(-1, line)
    by_order = order.expand_as(line).gather(-1, line)
    line = line.gather(-1, by_order.argsort(dim=-1, descending=True, stable=True))
    return inverse(line)

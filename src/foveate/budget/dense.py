"""Layers in which nothing goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from foveate.budget.bound import inner_bounds
from foveate.method import Budget, everything
from foveate.option import Count, check_count
from foveate.types import Int, Ranking

__all__ = ["Dense"]


@dataclass(frozen=True, slots=True)
class Dense:
    """The first `layers` layers of the model keep everything; the budget is that of the others."""

    budget: Budget
    layers: Count

    def __post_init__(self) -> None:
        check_count("layers", self.layers)

    @property
    def keep(self) -> float | int:
        """Return the share or number of tokens of the budget inside."""
        return self.budget.keep

    def __call__(self, rankings: Sequence[Ranking]) -> Int[Tensor, "N B H"]:
        """Return the counts of kept candidates."""
        others = [ranking for ranking in rankings if ranking.layer >= self.layers]
        counts = iter(self.budget(others) if others else ())
        device = rankings[0].scores.device
        parts = [
            next(counts) if ranking.layer >= self.layers else everything(ranking)
            for ranking in rankings
        ]
        return torch.stack([part.to(device) for part in parts])

    def bounds(self, rankings: Sequence[Ranking], layers: int) -> Int[Tensor, "m B H"] | None:
        """Return everything for the first layers, and the bounds of the budget for the others.

        Layers come in the order of their numbers: behind one of the others none of the first does.
        """
        most = torch.stack([everything(ranking) for ranking in rankings]).cpu()
        first = sum(ranking.layer < self.layers for ranking in rankings)
        if any(ranking.layer < self.layers for ranking in rankings[first:]):
            return None
        if first == len(rankings):
            return most
        others = inner_bounds(self.budget, rankings[first:], layers - first)
        return None if others is None else torch.cat([most[:first], others])

"""Layers in which nothing goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

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

"""A budget that grows with what goes last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from foveate.method import Budget
from foveate.types import GOES_LAST, PINNED, Int, Ranking

__all__ = ["Union"]


@dataclass(frozen=True, slots=True)
class Union:
    """The same, but a head keeps at least all tokens that are pinned or go last.

    Under a scope in which text goes last that is all the text there is; the total is then no cap.
    """

    budget: Budget

    @property
    def keep(self) -> float | int:
        """Return the share or number of tokens of the budget inside."""
        return self.budget.keep

    def __call__(self, rankings: Sequence[Ranking]) -> Int[Tensor, "N B H"]:
        """Return the counts of kept candidates."""
        counts = self.budget(rankings)
        least = [
            ((ranking.tiers == GOES_LAST) | (ranking.tiers == PINNED)).sum(-1).to(counts.device)
            for ranking in rankings
        ]
        floors = torch.stack([x if x.ndim == 2 else x[:, None] for x in least])
        return torch.maximum(counts, floors)

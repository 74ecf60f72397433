"""A budget that grows with what goes last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from foveate.budget.bound import inner_bounds
from foveate.budget.once import once
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
        return torch.maximum(counts, floors(rankings).to(counts.device))

    def bounds(self, rankings: Sequence[Ranking], layers: int) -> Int[Tensor, "m B H"] | None:
        """Return the bounds of the budget, or what a head keeps at least where that is more."""
        counts = inner_bounds(self.budget, rankings, layers)
        return None if counts is None else torch.maximum(counts, floors(rankings))


def floors(rankings: Sequence[Ranking]) -> Int[Tensor, "N B h"]:
    """Return how many tokens are pinned or go last, in host memory; h is 1 if heads agree."""
    return torch.stack([lasting(ranking) for ranking in rankings])


@once
def lasting(ranking: Ranking) -> Int[Tensor, "B h"]:
    """Return how many tokens of one layer are pinned or go last."""
    least = ((ranking.tiers == GOES_LAST) | (ranking.tiers == PINNED)).sum(-1).cpu()
    return least if least.ndim == 2 else least[:, None]

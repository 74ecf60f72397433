"""As many tokens in every layer and head: as many as the largest of them keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from foveate.group import all_heads
from foveate.method import Budget, Fitted, everything
from foveate.types import STAYS, Int, Ranking

__all__ = ["Even"]


@dataclass(frozen=True, slots=True)
class Even:
    """The same, but every layer and head of a row keeps as many tokens as the largest of them.

    What a head keeps beyond its own budget is what comes next in its ranking. Tokens that stay on
    top of the budget are counted. How many the largest keeps is known once all layers are ranked.
    """

    budget: Budget

    @property
    def keep(self) -> float | int:
        """Return the share or number of tokens of the budget inside."""
        return self.budget.keep

    def check(self, model_name: str | None, layers: int, query_heads: int, kv_heads: int) -> None:
        """Raise `MethodError` if the budget inside holds another model's numbers."""
        if isinstance(self.budget, Fitted):
            self.budget.check(model_name, layers, query_heads, kv_heads)

    def __call__(self, rankings: Sequence[Ranking]) -> Int[Tensor, "N B H"]:
        """Return the counts of kept candidates."""
        counts = self.budget(rankings)
        on_top = torch.stack([staying(x).to(counts.device) for x in rankings])
        room = torch.stack([everything(x).to(counts.device) for x in rankings])
        kept = counts.minimum(room) + on_top
        largest = torch.stack(
            [all_heads(k, x.group).amax(1) for k, x in zip(kept, rankings, strict=True)]
        )
        return (largest.amax(0)[None, :, None] - on_top).clamp(min=0).minimum(room)


def staying(ranking: Ranking) -> Int[Tensor, "B h"]:
    """Return how many tokens stay on top of the budget; h is 1 if heads agree."""
    count = (ranking.tiers == STAYS).sum(-1)
    return count if count.ndim == 2 else count[:, None]

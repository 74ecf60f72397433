"""One budget for the heads of all layers: tokens go where the best scores are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from foveate.budget.bound import above, bounded
from foveate.budget.level import among_first
from foveate.budget.once import once
from foveate.budget.total import Supply, supply
from foveate.group import all_heads, own_heads
from foveate.kernels.allocate import round_to
from foveate.option import Keep, Share, check_share, plain_keep
from foveate.types import Float, Int, Ranking

__all__ = ["Joint"]


@dataclass(frozen=True, slots=True)
class Joint:
    """Heads of all layers get what they hold of the best R tokens of all, R being the budget.

    Of what may go a head gets `(1 - alpha) * n + alpha * R * v / V`, where n of the R best scores
    (or of the ranking's mass) are its own, and v of all V tokens that may go; whole numbers with
    the sum R. Equal scores go to the earlier layer, then head.
    """

    keep: Keep
    alpha: Share = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "keep", plain_keep(self.keep))
        check_share("alpha", self.alpha)

    def __call__(self, rankings: Sequence[Ranking]) -> Int[Tensor, "N B H"]:
        """Return the counts of kept candidates."""
        tokens = supply(rankings)
        shares, cap = self.shares(rankings, tokens)
        H = shares.shape[-1]
        total = H * tokens.base(self.keep)
        zero = torch.zeros_like(cap).flatten(1)
        counts = round_to(shares.flatten(1), total, cap.flatten(1), zero).view(cap.shape)
        return self.own(counts, tokens, rankings).to(rankings[0].scores.device)

    def bounds(self, rankings: Sequence[Ranking], layers: int) -> Int[Tensor, "m B H"] | None:
        """Return what the known layers get if no other holds any of the best, rounded up.

        A layer more only takes places among the best.
        """

        def known(tokens: Supply) -> Int[Tensor, "B m H"]:
            counts = above(*self.shares(rankings, tokens))
            return self.own(counts, tokens, rankings).transpose(0, 1)

        return bounded(self, rankings, layers, known)

    def shares(
        self, rankings: Sequence[Ranking], tokens: Supply
    ) -> tuple[Float[Tensor, "B m H"], Int[Tensor, "B m H"]]:
        """Return how much the heads of the known layers get, and how much they have."""
        held = torch.stack([ordered(ranking) for ranking in rankings], 1)  # [B, m, H, T]
        base, going = tokens.base(self.keep), tokens.going
        cap = going[:, : len(rankings), None].expand(held.shape[:3])
        found = among_first(held.flatten(1, 2), held.shape[2] * base).view(cap.shape).minimum(cap)
        even = base.double() / going.sum(-1).clamp(min=1)
        return (1 - self.alpha) * found + self.alpha * even[:, None, None] * cap, cap

    def own(
        self, counts: Int[Tensor, "B m H"], tokens: Supply, rankings: Sequence[Ranking]
    ) -> Int[Tensor, "m B h"]:
        """Return the counts of this process's heads, with what is pinned."""
        pinned = tokens.with_pinned(self.keep, torch.zeros_like(tokens.going[:, : len(rankings)]))
        return own_heads((counts + pinned[..., None]).transpose(0, 1), rankings[0].group)


@once
def ordered(ranking: Ranking) -> Float[Tensor, "B H T"]:
    """Return the negated scores of what may go in all heads, ascending, in host memory."""
    scores = ranking.scores if ranking.mass is None else ranking.mass
    scores, going = all_heads(scores, ranking.group), ranking.candidates
    going = all_heads(going, ranking.group) if going.ndim == 3 else going[:, None]
    line = scores.masked_fill(~going, -torch.inf).sort(dim=-1, descending=True).values
    return -line.cpu().double().contiguous()

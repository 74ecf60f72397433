"""What the text behind the image looks at, and how many tokens it looks at."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from foveate.group import total
from foveate.kernels.column_stats import row_blocks
from foveate.option import Choice, Share, check_choice, check_share
from foveate.score.attention import HEADS, by_heads
from foveate.score.window import AllText, Window, of_all_heads
from foveate.types import Bool, Float, Int, Observation, Ranking, TokenKinds

__all__ = ["Density"]


@dataclass(frozen=True, slots=True)
class Density:
    """`sum_i a[i, j]` over the window's rows i, a being the attention; `heads` as `Attention`.

    Statistics: "density", the share of all pairs of a window's row and a token that it sees with
    `a[i, j] >= threshold * max_j a[i, j]`, averaged over all query heads; "window" and "fallback"
    as `Attention` has them.
    """

    window: Window = field(default_factory=AllText)
    heads: Choice = "shared"
    threshold: Share = 0.01

    def __post_init__(self) -> None:
        check_choice("heads", self.heads, HEADS)
        check_share("threshold", self.threshold)

    def rows(self, kinds: TokenKinds) -> Bool[Tensor, "B T"]:
        """Return the tokens whose queries the window may need."""
        return self.window.rows(kinds)

    def __call__(self, observation: Observation, tiers: Int[Tensor, "B T"]) -> Ranking:
        """Return the ranking of one layer."""
        chosen = self.window(observation)
        members = of_all_heads(chosen.members, observation).any(1)
        sums, density = self.looked_at(observation, members)
        stats = {
            "density": density,
            "window": members.sum(-1).float(),
            "fallback": chosen.fallback.float(),
        }
        scores = by_heads(sums, observation.keys.shape[1], self.heads, observation.group)
        return Ranking(scores, tiers, observation.layer, stats)

    def looked_at(
        self, observation: Observation, members: Bool[Tensor, "B T"]
    ) -> tuple[Float[Tensor, "B Hq T"], Float[Tensor, " B"]]:
        """Return the sums of all columns, and the share of pairs that are not filtered out."""
        valid, rows = observation.kinds.valid, observation.rows
        observes = members.gather(-1, rows.clamp(min=0)) & (rows >= 0)
        rows = rows.masked_fill(~observes, -1)
        B, Hq = observation.queries.shape[:2]
        sums = torch.zeros(B, Hq, valid.shape[-1], device=rows.device)
        survivors = torch.zeros(B, dtype=torch.long, device=rows.device)
        blocks = row_blocks(
            observation.queries,
            observation.keys,
            scaling=observation.scaling,
            rows=rows,
            columns=valid,
        )
        for _, p in blocks:
            sums = sums + p.sum(2)
            most = p.amax(-1, keepdim=True)  # 0 where there is no row
            stays = p >= (self.threshold * most).masked_fill(most == 0, torch.inf)
            survivors = survivors + stays.flatten(1).sum(-1)
        pairs = (valid.cumsum(-1) * members).sum(-1) * Hq
        if self.threshold == 0:  # all pairs, but what is not seen has 0 too
            survivors = pairs
        pairs, survivors = (total(x, observation.group) for x in (pairs, survivors))
        exact = torch.float32 if rows.device.type == "mps" else torch.float64
        return sums, survivors.to(exact) / pairs.clamp(min=1)

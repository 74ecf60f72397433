"""What text looks at, weighed by how much later text looks at it."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from foveate.group import all_heads
from foveate.kernels.column_stats import column_stats
from foveate.score.window import AllText, Window, of_all_heads
from foveate.types import Bool, Float, Int, Observation, Ranking, TokenKinds

__all__ = ["Grounded"]


@dataclass(frozen=True, slots=True)
class Grounded:
    """Image token k: `sum_j u[j] a[j, k]`; text token k: `sum_j a[j, k]`, for the window's rows j.

    a is the attention averaged over all query heads, and `u[j] = sum_i a[i, j] / (number of window
    rows i >= j)` what the window itself sees in row j. One ranking for all heads. Statistics:
    "mass", the sum of a over the window's rows and the image tokens; "window" and "fallback" as
    `Attention` has them.
    """

    window: Window = field(default_factory=AllText)

    def rows(self, kinds: TokenKinds) -> Bool[Tensor, "B T"]:
        """Return the tokens whose queries the window may need."""
        return self.window.rows(kinds)

    def __call__(self, observation: Observation, tiers: Int[Tensor, "B T"]) -> Ranking:
        """Return the ranking of one layer."""
        kinds = observation.kinds
        chosen = self.window(observation)
        members = of_all_heads(chosen.members, observation).any(1)
        places = observation.rows.clamp(min=0)
        observes = members.gather(-1, places) & (observation.rows >= 0)
        sums = head_mean(observation, observes.float())
        seen_by = members.flip(-1).cumsum(-1).flip(-1).clamp(min=1)
        worth = (sums / seen_by).gather(-1, places)
        weighed = head_mean(observation, worth.masked_fill(~observes, 0))
        scores = torch.where(kinds.visual, weighed, sums)
        wide = sums if sums.device.type == "mps" else sums.double()
        stats = {
            "mass": wide.masked_fill(~kinds.visual, 0).sum(-1),
            "window": members.sum(-1).float(),
            "fallback": chosen.fallback.float(),
        }
        scores = scores[:, None].expand(-1, observation.keys.shape[1], -1)
        return Ranking(scores, tiers, observation.layer, stats)


def head_mean(observation: Observation, weights: Float[Tensor, "B R"]) -> Float[Tensor, "B T"]:
    """Return what the weighted rows give every token, on average over all query heads."""
    sums = column_stats(
        observation.queries,
        observation.keys,
        scaling=observation.scaling,
        rows=observation.rows,
        columns=observation.kinds.valid,
        weights=weights,
    )
    return all_heads(sums, observation.group).mean(1)

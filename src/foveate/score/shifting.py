"""What a window looks at on average, and what it looks at by turns."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from foveate.group import total
from foveate.kernels.column_stats import row_blocks
from foveate.option import Number, check_number
from foveate.score.window import LastRows, Window, of_all_heads
from foveate.types import (
    GOES_FIRST,
    GOES_LAST,
    Bool,
    Float,
    Int,
    Observation,
    Ranking,
    TokenKinds,
)

__all__ = ["Shifting"]

LEAST = 0.05  # of tau: below, roots leave the range of numbers


@dataclass(frozen=True, slots=True)
class Shifting:
    """`mean_i a[i, j] + gamma * var_i a[i, j]` over the window's rows i, the unbiased variance.

    Per key-value head, a being the attention of each of its query heads, whose scores are averaged.
    Statistics: "preference", `H^(1/tau1) * V^(1/tau2)` with the entropy `H = -sum a log a` and the
    variance V, both summed over all heads and the tokens that may go; "window"
    and "fallback" as `Attention` has them.
    """

    window: Window = field(default_factory=LastRows)
    gamma: Number = 200.0
    tau1: Number = 1.0
    tau2: Number = 1.0

    def __post_init__(self) -> None:
        check_number("gamma", self.gamma)
        check_number("tau1", self.tau1, LEAST)
        check_number("tau2", self.tau2, LEAST)

    def rows(self, kinds: TokenKinds) -> Bool[Tensor, "B T"]:
        """Return the tokens whose queries the window may need."""
        return self.window.rows(kinds)

    def __call__(self, observation: Observation, tiers: Int[Tensor, "B T"]) -> Ranking:
        """Return the ranking of one layer."""
        chosen = self.window(observation)
        members = of_all_heads(chosen.members, observation).any(1)
        candidates = (tiers == GOES_FIRST) | (tiers == GOES_LAST)
        mean, variance, entropy = moments(observation, members, candidates)
        worth = mean + self.gamma * variance
        V = wide(variance.masked_fill(~candidates[:, None], 0)).sum((1, 2))
        V, entropy = (total(x, observation.group) for x in (V, entropy))
        stats = {
            "preference": entropy ** (1 / self.tau1) * V ** (1 / self.tau2),
            "window": members.sum(-1).float(),
            "fallback": chosen.fallback.float(),
        }
        scores = worth.unflatten(1, (observation.keys.shape[1], -1)).mean(2)
        return Ranking(scores, tiers, observation.layer, stats)


def moments(
    observation: Observation, members: Bool[Tensor, "B T"], columns: Bool[Tensor, "B T"]
) -> tuple[Float[Tensor, "B Hq T"], Float[Tensor, "B Hq T"], Float[Tensor, " B"]]:
    """Return mean and variance of every column over the rows of members, and their entropy.

    The entropy is that of the `columns`, summed over heads.
    """
    rows = observation.rows
    observes = members.gather(-1, rows.clamp(min=0)) & (rows >= 0)
    B, Hq = observation.queries.shape[:2]
    mean = torch.zeros(B, Hq, members.shape[-1], device=rows.device)
    off, entropy = torch.zeros_like(mean), wide(mean.sum((1, 2)))
    seen = torch.zeros(B, 1, 1, device=rows.device)
    blocks = row_blocks(
        observation.queries,
        observation.keys,
        scaling=observation.scaling,
        rows=rows.masked_fill(~observes, -1),
        columns=observation.kinds.valid,
    )
    for part, p in blocks:
        # Means and squared differences of parts make those of the whole (Chan et al.).
        here = observes[:, None, part, None]
        count = observes[:, part].sum(-1).float()[:, None, None]
        middle = p.sum(2) / count.clamp(min=1)
        apart = (p - middle[:, :, None]).square().masked_fill(~here, 0).sum(2)
        both, step = seen + count, middle - mean
        off = off + apart + step.square() * (seen * count / both.clamp(min=1))
        mean = mean + step * (count / both.clamp(min=1))
        seen = both
        per_column = torch.special.entr(p).sum(2)
        entropy = entropy + wide(per_column.masked_fill(~columns[:, None], 0)).sum((1, 2))
    return mean, off / (seen - 1).clamp(min=1), entropy


def wide(values: Tensor) -> Tensor:
    """Return the values in double, where the device has it."""
    return values if values.device.type == "mps" else values.double()

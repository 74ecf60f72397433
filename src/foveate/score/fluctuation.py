"""What a token gets on average from the rows that see it, and how much that fluctuates."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from foveate.kernels.column_stats import column_stats
from foveate.option import Share, check_share
from foveate.types import Bool, Float, Int, Observation, Quota, Ranking, TokenKinds

__all__ = ["Fluctuation", "deviation"]

ROUNDING = 1e-6  # of the mean square: a smaller variance is rounding


@dataclass(frozen=True, slots=True)
class Fluctuation:
    """`mean[j] = S / c`; a share `spread` of the budget goes to the highest deviations first.

    `deviation[j] = sqrt(max(0, S2 / c - mean^2))`, where S and S2 are the sums of `a[i, j]` and its
    square over the c rows i that see j, a being the attention averaged over the query heads of a
    key-value head. All tokens observe. State: "sum", "square" and "count".
    """

    spread: Share = 0.3

    def __post_init__(self) -> None:
        check_share("spread", self.spread)

    def rows(self, kinds: TokenKinds) -> Bool[Tensor, "B T"]:
        """Return all tokens."""
        return kinds.valid

    def __call__(self, observation: Observation, tiers: Int[Tensor, "B T"]) -> Ranking:
        """Return the ranking of one layer."""
        valid = observation.kinds.valid
        total, square = (
            column_stats(
                observation.queries,
                observation.keys,
                scaling=observation.scaling,
                rows=observation.rows,
                columns=valid,
                power=power,
                group=True,
            )
            for power in (1, 2)
        )
        count = valid.flip(-1).cumsum(-1).flip(-1).float()[:, None].expand_as(total)
        mean = total / count.clamp(min=1)
        return Ranking(
            mean,
            tiers,
            observation.layer,
            quota=Quota(deviation(total, square, count), self.spread),
            state={"sum": total, "square": square, "count": count},
        )


def deviation(
    total: Float[Tensor, "*shape"], square: Float[Tensor, "*shape"], count: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """Return the standard deviation of `count` numbers with that sum and sum of squares."""
    # The difference of two nearly equal numbers: in double where the device has it.
    wide = total.dtype if total.device.type == "mps" else torch.float64
    count = count.clamp(min=1).to(wide)
    mean, square = total.to(wide) / count, square.to(wide) / count
    variance = square - mean.square()
    return variance.masked_fill(variance < ROUNDING * square, 0).sqrt().to(total.dtype)

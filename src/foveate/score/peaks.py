"""What the end of the prompt looks at sharply, not what it looks at a little everywhere."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from foveate.kernels.column_stats import row_blocks
from foveate.option import Flag, Share, check_flag, check_share
from foveate.score.window import LastRows, Window
from foveate.types import Bool, Float, Int, Observation, Ranking, TokenKinds

__all__ = ["Peaks"]


@dataclass(frozen=True, slots=True)
class Peaks:
    """`sum_i w[i] a[i, j]^2 / sum_i w[i]` over the window's rows i, a being the attention.

    The last row has the weight 1, and every row `fade` times that of the next one (`fade=0`: the
    last row alone). Scores are those of a key-value head, averaged over its query heads. With
    `mass` the ranking's mass is the same sum of a itself. Statistic: "fallback" as `Attention` has
    it.
    """

    window: Window = field(default_factory=LastRows)
    fade: Share = 0.5
    mass: Flag = False

    def __post_init__(self) -> None:
        check_share("fade", self.fade)
        check_flag("mass", self.mass)

    def rows(self, kinds: TokenKinds) -> Bool[Tensor, "B T"]:
        """Return the tokens whose queries the window may need."""
        return self.window.rows(kinds)

    def __call__(self, observation: Observation, tiers: Int[Tensor, "B T"]) -> Ranking:
        """Return the ranking of one layer."""
        chosen = self.window(observation)
        weights = faded(chosen.members, self.fade)
        rows = observation.rows
        wide = rows.clamp(min=0)[:, None].expand(-1, weights.shape[1], -1)
        weights = weights.gather(-1, wide) * chosen.at(rows)  # [B, X, R]
        mass, squares = self.sums(observation, weights)
        H = observation.keys.shape[1]
        scores, mass = (x.unflatten(1, (H, -1)).mean(2) for x in (squares, mass))
        stats = {"fallback": chosen.fallback.float()}
        return Ranking(scores, tiers, observation.layer, stats, mass=mass if self.mass else None)

    def sums(
        self, observation: Observation, weights: Float[Tensor, "B X R"]
    ) -> tuple[Float[Tensor, "B Hq T"], Float[Tensor, "B Hq T"]]:
        """Return the weighted sums of attention, and those of its squares."""
        B, Hq = observation.queries.shape[:2]
        mass = torch.zeros(B, Hq, observation.kinds.kind.shape[-1], device=weights.device)
        squares = torch.zeros_like(mass)
        blocks = row_blocks(
            observation.queries,
            observation.keys,
            scaling=observation.scaling,
            rows=observation.rows.masked_fill(~(weights > 0).any(1), -1),
            columns=observation.kinds.valid,
        )
        for part, p in blocks:
            weight = weights[..., part, None]
            mass = mass + (p * weight).sum(2)
            squares = squares + (p.square() * weight).sum(2)
        return mass, squares


def faded(members: Bool[Tensor, "B X T"], fade: float) -> Float[Tensor, "B X T"]:
    """Return the weights of the members, the last one's being the highest; they sum to 1."""
    behind = members.flip(-1).cumsum(-1).flip(-1) - 1  # how many members come later
    weights = torch.pow(float(fade), behind.clamp(min=0).float()) * members
    return weights / weights.sum(-1, keepdim=True).clamp(min=1)

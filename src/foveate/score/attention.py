"""What a window attends to."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from foveate.group import HeadGroup, all_heads
from foveate.kernels.column_stats import column_stats
from foveate.option import Choice, check_choice
from foveate.score.elite import Elite
from foveate.score.window import Selection, Window, of_all_heads
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

__all__ = ["HEADS", "Attention", "by_heads"]

SOFTMAX = ("restricted", "full")
STATISTICS = ("mean", "sum", "rate")
HEADS = ("shared", "per_kv_head")


@dataclass(frozen=True, slots=True)
class Attention:
    """`mean over heads h and window rows i of softmax_j(q[h, i] . k[j] * scaling)`, not pooled.

    `softmax` says over which keys: the candidates and the window's own tokens ("restricted"), or
    all that the model saw ("full"). `heads` says whether all key-value heads rank alike
    ("shared") or each by the query heads that read it ("per_kv_head"). `statistic` says what
    becomes of the rows: their mean, their sum, or the mean of those that see the key ("rate").
    Statistics: "window", the number of rows (averaged over heads), and "fallback", 1 where the
    window found no instruction to observe from. State: "sum" and "count", the sum over the rows
    and the number of those that see the key.
    """

    window: Window = field(default_factory=Elite)
    softmax: Choice = "restricted"
    heads: Choice = "shared"
    statistic: Choice = "mean"

    def __post_init__(self) -> None:
        check_choice("softmax", self.softmax, SOFTMAX)
        check_choice("heads", self.heads, HEADS)
        check_choice("statistic", self.statistic, STATISTICS)

    def rows(self, kinds: TokenKinds) -> Bool[Tensor, "B T"]:
        """Return the tokens whose queries the window may need."""
        return self.window.rows(kinds)

    def __call__(self, observation: Observation, tiers: Int[Tensor, "B T"]) -> Ranking:
        """Return the ranking of one layer."""
        candidates = (tiers == GOES_FIRST) | (tiers == GOES_LAST)
        chosen = self.window(observation)
        size = chosen.members.sum(-1)  # [B, X]
        weights = chosen.at(observation.rows).float()
        if self.statistic == "mean":
            weights = weights / size.clamp(min=1)[..., None]
        H, group = observation.keys.shape[1], observation.group
        sums = self.columns(observation, chosen, candidates, weights)
        scores = by_heads(sums, H, self.heads, group)
        state = {}
        if self.statistic != "mean":
            seen = chosen.members.flip(-1).cumsum(-1).flip(-1).float()
            seen = seen.expand(-1, observation.queries.shape[1], -1)
            count = by_heads(seen, H, self.heads, group)
            state = {"sum": scores, "count": count}
            scores = scores / count.clamp(min=1) if self.statistic == "rate" else scores
        compressible = candidates.any(-1)
        stats = {
            "window": of_all_heads(size, observation).float().mean(1) * compressible,
            "fallback": (chosen.fallback & compressible).float(),
        }
        return Ranking(scores, tiers, observation.layer, stats, state=state)

    def columns(
        self,
        observation: Observation,
        chosen: Selection,
        candidates: Bool[Tensor, "B T"],
        weights: Float[Tensor, "B X R"],
    ) -> Float[Tensor, "B Hq T"]:
        """Return the weighted sums over the rows of the softmax."""
        seen = observation.kinds.valid
        if self.softmax == "restricted":
            seen = candidates[:, None] | chosen.members
            seen = seen[:, 0] if seen.shape[1] == 1 else seen
        return column_stats(
            observation.queries,
            observation.keys,
            scaling=observation.scaling,
            rows=observation.rows,
            columns=seen,
            weights=weights.expand(-1, observation.queries.shape[1], -1),
        )


def by_heads(
    sums: Float[Tensor, "B Hq T"], H: int, heads: str, group: HeadGroup | None
) -> Float[Tensor, "B H T"]:
    """Return the mean over all query heads ("shared"), or over those of a key-value head."""
    if heads == "shared":
        return all_heads(sums, group).mean(1, keepdim=True).expand(-1, H, -1)
    return sums.unflatten(1, (H, -1)).mean(2)

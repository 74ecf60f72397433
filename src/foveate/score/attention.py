"""What a window attends to."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from foveate.kernels.column_stats import column_stats
from foveate.option import Choice, check_choice
from foveate.score.elite import Elite
from foveate.score.window import Window
from foveate.types import Bool, Int, Observation, Ranking, TokenKinds

__all__ = ["Attention"]

SOFTMAX = ("restricted", "full")
HEADS = ("shared", "per_kv_head")


@dataclass(frozen=True, slots=True)
class Attention:
    """`mean over heads h and window rows i of softmax_j(q[h, i] . k[j] * scaling)`, not pooled.

    `softmax` says over which keys: the candidates and the window's own tokens ("restricted"), or
    all that the model saw ("full"). `heads` says whether all key-value heads rank alike
    ("shared") or each by the query heads that read it ("per_kv_head"). Statistics: "window", the
    number of rows (averaged over heads), and "fallback", 1 where the window found no instruction
    to observe from.
    """

    window: Window = field(default_factory=Elite)
    softmax: Choice = "restricted"
    heads: Choice = "shared"

    def __post_init__(self) -> None:
        check_choice("softmax", self.softmax, SOFTMAX)
        check_choice("heads", self.heads, HEADS)

    def rows(self, kinds: TokenKinds) -> Bool[Tensor, "B T"]:
        """Return the tokens whose queries the window may need."""
        return self.window.rows(kinds)

    def __call__(self, observation: Observation, tiers: Int[Tensor, "B T"]) -> Ranking:
        """Return the ranking of one layer."""
        candidates = (tiers == 0) | (tiers == 1)
        chosen = self.window(observation)
        size = chosen.members.sum(-1)  # [B, X]
        members = chosen.at(observation.rows)
        weights = members / size.clamp(min=1)[..., None]
        Hq, H = observation.queries.shape[1], observation.keys.shape[1]
        if self.softmax == "full":
            columns = observation.kinds.valid
        else:
            columns = candidates[:, None] | chosen.members
            columns = columns[:, 0] if columns.shape[1] == 1 else columns
        importance = column_stats(
            observation.queries,
            observation.keys,
            scaling=observation.scaling,
            rows=observation.rows,
            columns=columns,
            weights=weights.expand(-1, Hq, -1),
        )
        if self.heads == "shared":
            importance = importance.mean(1, keepdim=True)
        else:
            importance = importance.unflatten(1, (H, -1)).mean(2)
        importance = torch.where(candidates[:, None], importance, 0).expand(-1, H, -1)
        compressible = candidates.any(-1)
        stats = {
            "window": size.float().mean(1) * compressible,
            "fallback": (chosen.fallback & compressible).float(),
        }
        return Ranking(importance, tiers, observation.layer, stats)

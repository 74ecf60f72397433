"""AirCache's window: what the last instruction token attends to almost the most."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from foveate.kernels.column_stats import column_stats
from foveate.option import Choice, Flag, Share, check_choice, check_flag, check_share
from foveate.score.window import INSTRUCTIONS, Selection, instruction, observed, stand_in
from foveate.types import Bool, Float, Observation, TokenKinds

__all__ = ["Elite", "elite"]

HEADS = ("mean_prob", "per_head", "per_kv_group", "concat_logits")
TOLERANCE = 1e-6  # of the maximum: equal up to rounding is equal


@dataclass(frozen=True, slots=True)
class Elite:
    """Instruction tokens j with `a[j] >= alpha * max(a)`, a being the last one's attention to them.

    `heads` says whose attention that is: "mean_prob" averages the probabilities of all query heads,
    "per_kv_group" those that share keys, "per_head" gives each query head its own window, and
    "concat_logits" takes all heads as one wide head. A prompt without an instruction is observed by
    its last 32 visual tokens, and the statistic "fallback" says so.
    """

    alpha: Share = 0.9
    text: Choice = "after_last_visual"
    heads: Choice = "mean_prob"
    exclude_special: Flag = False

    def __post_init__(self) -> None:
        check_share("alpha", self.alpha)
        check_choice("text", self.text, INSTRUCTIONS)
        check_flag("exclude_special", self.exclude_special)
        check_choice("heads", self.heads, HEADS)

    def rows(self, kinds: TokenKinds) -> Bool[Tensor, "B T"]:
        """Return the instruction tokens, or their stand-in."""
        return stand_in(kinds, instruction(kinds, self.text, self.exclude_special))[0]

    def __call__(self, observation: Observation) -> Selection:
        """Return the elite of one layer."""
        kinds = observation.kinds
        text = instruction(kinds, self.text, self.exclude_special)
        chosen = observed(observation, *stand_in(kinds, text))
        attention = self.attention(observation, text)  # [B, X, T]
        members = elite(attention, text[:, None], self.alpha)
        members = torch.where(chosen.fallback[:, None, None], chosen.members, members)
        return Selection(members, chosen.fallback)

    def attention(
        self, observation: Observation, text: Bool[Tensor, "B T"]
    ) -> Float[Tensor, "B X T"]:
        """Return how the last instruction token attends to the instruction, X being 1 or Hq."""
        rows = observation.rows
        eligible = Selection(text[:, None], text.any(-1)).at(rows)[:, 0]
        newest = rows.masked_fill(~eligible, -1)
        newest = (newest == newest.amax(-1, keepdim=True)) & eligible
        queries, keys, scaling = observation.queries, observation.keys, observation.scaling
        if self.heads == "concat_logits":
            queries, keys, scaling = one_head(observation)
        a = column_stats(
            queries, keys, scaling=scaling, rows=rows, columns=text, weights=newest.float()
        )
        if self.heads == "per_kv_group":
            groups = observation.groups
            return a.unflatten(1, (-1, groups)).mean(2).repeat_interleave(groups, 1)
        return a if self.heads == "per_head" else a.mean(1, keepdim=True)


def elite(
    attention: Float[Tensor, "*batch T"], text: Bool[Tensor, "*#batch T"], alpha: float
) -> Bool[Tensor, "*batch T"]:
    """Return the text tokens with at least `alpha` times the highest attention, up to rounding."""
    attention = attention.masked_fill(~text, 0)
    return text & (attention >= (alpha - TOLERANCE) * attention.amax(-1, keepdim=True))


def one_head(
    observation: Observation,
) -> tuple[Float[Tensor, "B 1 R W"], Float[Tensor, "B 1 T W"], float]:
    """Return queries and keys of all heads side by side; logits are then sums over heads."""
    # The heads that share a key can be summed first: q1 . k + q2 . k = (q1 + q2) . k.
    queries = observation.queries.float().unflatten(1, (-1, observation.groups)).sum(2)
    queries = queries.transpose(1, 2).flatten(2)[:, None]
    keys = observation.keys.transpose(1, 2).flatten(2)[:, None]
    return queries, keys, observation.scaling / math.sqrt(observation.queries.shape[1])

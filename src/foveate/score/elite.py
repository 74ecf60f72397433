"""AirCache's window: what the last instruction token attends to almost the most."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from foveate.group import all_heads
from foveate.kernels.column_stats import column_stats
from foveate.option import Choice, Flag, Share, check_choice, check_flag, check_share
from foveate.score.window import INSTRUCTIONS, Selection, instruction, observed, stand_in
from foveate.types import Bool, Float, Int, Observation, TokenKinds

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
        kinds, rows = observation.kinds, observation.rows
        text = instruction(kinds, self.text, self.exclude_special)
        chosen = observed(observation, *stand_in(kinds, text))
        # Every instruction token is among the rows, so nothing but their keys needs to be read.
        eligible = Selection(text[:, None], chosen.fallback).at(rows)[:, 0]
        best = elite(self.attention(observation, eligible), eligible[:, None], self.alpha)
        place = rows.clamp(min=0)[:, None].expand_as(best)
        members = best.new_zeros(*best.shape[:2], text.shape[-1], dtype=torch.int)
        members = members.scatter_add(-1, place, best.int()) > 0
        members = torch.where(chosen.fallback[:, None, None], chosen.members, members)
        return Selection(members, chosen.fallback)

    def attention(
        self, observation: Observation, eligible: Bool[Tensor, "B R"]
    ) -> Float[Tensor, "B X R"]:
        """Return how the last eligible row attends to the eligible rows, X being 1 or Hq."""
        rows = observation.rows.masked_fill(~eligible, -1)
        newest = (rows == rows.amax(-1, keepdim=True)) & eligible if rows.numel() else eligible
        queries, keys = observation.queries, taken(observation.keys, rows.clamp(min=0))
        scaling, group = observation.scaling, observation.group
        if self.heads == "concat_logits":
            queries, keys = all_heads(queries, group), all_heads(keys, group)
            scaling /= math.sqrt(queries.shape[1])
            queries, keys = one_head(queries, keys)
        a = column_stats(
            queries, keys, scaling=scaling, rows=rows, positions=rows, weights=newest.float()
        )
        if self.heads == "per_kv_group":
            groups = observation.groups
            return a.unflatten(1, (-1, groups)).mean(2).repeat_interleave(groups, 1)
        if self.heads == "mean_prob":
            return all_heads(a, group).mean(1, keepdim=True)
        return a


def elite(
    attention: Float[Tensor, "*batch T"], text: Bool[Tensor, "*#batch T"], alpha: float
) -> Bool[Tensor, "*batch T"]:
    """Return the text tokens with at least `alpha` times the highest attention, up to rounding."""
    if attention.shape[-1] == 0:
        return text.expand_as(attention)
    attention = attention.masked_fill(~text, 0)
    return text & (attention >= (alpha - TOLERANCE) * attention.amax(-1, keepdim=True))


def one_head(
    queries: Float[Tensor, "B Hq R D"], keys: Float[Tensor, "B H R D"]
) -> tuple[Float[Tensor, "B 1 R W"], Float[Tensor, "B 1 R W"]]:
    """Return queries and keys of all heads side by side, so that logits are sums over heads."""
    # The heads that share a key can be summed first: q1 . k + q2 . k = (q1 + q2) . k.
    queries = queries.float().unflatten(1, (keys.shape[1], -1)).sum(2)
    queries = queries.transpose(1, 2).flatten(2)[:, None]
    return queries, keys.transpose(1, 2).flatten(2)[:, None]


def taken(
    keys: Float[Tensor, "B H T D"], positions: Int[Tensor, "B R"]
) -> Float[Tensor, "B H R D"]:
    """Return the keys at the positions of every row."""
    index = positions[:, None, :, None].expand(-1, keys.shape[1], -1, keys.shape[-1])
    return keys.gather(2, index)

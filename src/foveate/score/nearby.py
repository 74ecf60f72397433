"""Scores that patches take over from strong ones around them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from foveate.method import Score
from foveate.option import Count, Share, check_count, check_share
from foveate.score.patches import Patches, patches
from foveate.types import Bool, Float, Int, Observation, Ranking, TokenKinds

__all__ = ["Nearby", "around"]


@dataclass(frozen=True, slots=True)
class Nearby:
    """The same ranking, where visual tokens take over the highest score around them.

    In its row of patches a token hands its score to the `before` tokens on its left and the
    `after` tokens on its right, as text that is found is read on from there. The share `far` of
    it goes to the same columns in the rows above and below, and to the rest of the row. An image
    of unknown grid is one row, of which only the `before` and `after` take over.
    """

    score: Score
    before: Count = 2
    after: Count = 5
    far: Share = 0.3

    def __post_init__(self) -> None:
        check_count("before", self.before)
        check_count("after", self.after)
        check_share("far", self.far)

    def rows(self, kinds: TokenKinds) -> Bool[Tensor, "B T"] | None:
        """Return the rows that the score reads."""
        return self.score.rows(kinds)

    def __call__(self, observation: Observation, tiers: Int[Tensor, "B T"]) -> Ranking:
        """Return the ranking with what is handed over."""
        ranking = self.score(observation, tiers)
        kinds, scores = observation.kinds, ranking.scores
        alike = not scores.stride(1)  # heads that rank alike are looked at once
        taken = around(scores[:, :1] if alike else scores, kinds, self.before, self.after, self.far)
        return replace(ranking, scores=taken.expand_as(scores))


def around(
    scores: Float[Tensor, "B H T"], kinds: TokenKinds, before: int, after: int, far: float
) -> Float[Tensor, "B H T"]:
    """Return the highest score that reaches every visual token; others keep their own."""
    lie = patches(kinds)
    order = (~kinds.visual).int().argsort(dim=-1, stable=True)  # visual tokens first
    width, height = lie.grid[..., 2], lie.grid[..., 1]
    column, row = lie.within % width, lie.within // width % height

    def moved(values: Tensor, step: Int[Tensor, "B T"], there: Bool[Tensor, "B T"]) -> Tensor:
        """Return the values of the visual tokens so many numbers away, 0 where there is none."""
        near = (lie.number + step).clamp(0, scores.shape[-1] - 1)
        near = order.gather(-1, near)[:, None].expand_as(values)
        return values.gather(-1, near).masked_fill(~there[:, None], 0)

    near = scores
    longest = int(width.masked_fill(~kinds.visual, 1).max()) - 1 if width.numel() else 0
    for step in range(-min(after, longest), min(before, longest) + 1):
        there = kinds.visual & (column + step >= 0) & (column + step < width)
        near = torch.maximum(near, moved(scores, torch.full_like(column, step), there))
    out = torch.maximum(near, far * along_row(scores, kinds, lie, column))
    for step in (-1, 1):
        there = kinds.visual & (row + step >= 0) & (row + step < height)
        out = torch.maximum(out, far * moved(near, step * width, there))
    return torch.where(kinds.visual[:, None], out, scores)


def along_row(
    scores: Float[Tensor, "B H T"], kinds: TokenKinds, lie: Patches, column: Int[Tensor, "B T"]
) -> Float[Tensor, "B H T"]:
    """Return the highest score of every token's row of patches, 0 where an image has one row."""
    several = kinds.visual & (lie.grid[..., 1] > 1)
    first = torch.where(several, lie.number - column, 0)[:, None].expand_as(scores)
    most = torch.zeros_like(scores)
    most.scatter_reduce_(-1, first, scores.masked_fill(~several[:, None], 0), "amax")
    return most.gather(-1, first).masked_fill(~several[:, None], 0)

"""Scores for videos: what changes over time, and smoothing that depends on the layer."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from foveate.errors import InputError
from foveate.method import Score
from foveate.option import Share, check_share
from foveate.score.directions import unit_keys
from foveate.score.patches import averaged, patches
from foveate.types import Bool, Int, Observation, Quota, Ranking, TokenKinds

__all__ = ["Changing", "Smoothed", "frames"]

BOXES = ((7, (0, 1, 2)), (5, (1, 2)), (3, ()))  # kernel and axes, per quarter of the layers


@dataclass(frozen=True, slots=True)
class Changing:
    """The same ranking, but `share` of every budget goes to recent frames and to what changed.

    Frames are those of videos whose grid is known, and other images whole; if they are two or more
    with as many tokens each, the last `floor(recent * frames)` of them, one at least, are recent.
    Their tokens come first, newest frames before older ones; then older tokens k by
    `-mean over recent frames of cos(key of k, key of the same patch)` (arXiv 2506.15745). Where
    there are no such frames, all goes by the ranking.
    """

    score: Score
    share: Share = 0.5
    recent: Share = 0.25

    def __post_init__(self) -> None:
        check_share("share", self.share)
        check_share("recent", self.recent)

    def rows(self, kinds: TokenKinds) -> Bool[Tensor, "B T"] | None:
        """Return the rows that the score reads."""
        return self.score.rows(kinds)

    def __call__(self, observation: Observation, tiers: Int[Tensor, "B T"]) -> Ranking:
        """Return the ranking with its quota."""
        ranking = self.score(observation, tiers)
        visual = observation.kinds.visual
        frame, patch, count = frames(observation.kinds)
        newest = (count * self.recent + 1e-6).floor().long().clamp(min=1)
        recent = visual & (frame >= (count - newest)[:, None])
        unit = unit_keys(observation.keys).masked_fill(~visual[:, None, :, None], 0)
        index = patch[:, None, :, None].expand_as(unit)
        sums = unit.masked_fill(~recent[:, None, :, None], 0)
        sums = torch.zeros_like(unit).scatter_add_(2, index, sums)
        change = -(unit * sums.gather(2, index)).sum(-1) / newest[:, None, None]
        # Cosines lie between -1 and 1.
        change = torch.where(recent[:, None], 2 + frame[:, None].float(), change)
        change = change.masked_fill(~visual[:, None], -torch.inf)
        scores = torch.where((count > 1)[:, None, None], change, ranking.scores)
        return replace(ranking, quota=Quota(scores, self.share))


@dataclass(frozen=True, slots=True)
class Smoothed:
    """The same ranking, scores of images being averaged over patches, in early layers over more.

    Over a box of 7 in time, height and width in the first quarter of the model's layers, of 5 in
    height and width in the second, of 3 tokens in their order in the third (arXiv 2506.15745).
    """

    score: Score

    def rows(self, kinds: TokenKinds) -> Bool[Tensor, "B T"] | None:
        """Return the rows that the score reads."""
        return self.score.rows(kinds)

    def __call__(self, observation: Observation, tiers: Int[Tensor, "B T"]) -> Ranking:
        """Return the ranking with averaged scores."""
        if observation.layers is None:
            raise InputError(
                "adaptive pooling depends on the quarter of the model that a layer is in; give "
                "Observation(..., layers=N) with the number of the model's layers, or use "
                "pooling='none'"
            )
        ranking = self.score(observation, tiers)
        quarter = observation.layer * 4 // observation.layers
        if quarter >= len(BOXES):
            return ranking
        kernel, axes = BOXES[quarter]
        return replace(ranking, scores=averaged(ranking.scores, observation.kinds, kernel, axes))


def frames(
    kinds: TokenKinds,
) -> tuple[Int[Tensor, "B T"], Int[Tensor, "B T"], Int[Tensor, " B"]]:
    """Return frame and patch of every visual token, and the number of frames.

    That is 0 where frames differ in their number of tokens.
    """
    visual, lie = kinds.visual, patches(kinds)
    patch = torch.where(visual, lie.within % lie.area, 0)
    frame = (visual & (patch == 0)).cumsum(-1) - 1
    most = lie.area.masked_fill(~visual, 0).amax(-1)
    least = torch.where(visual, lie.area, most[:, None]).amin(-1)
    count = (frame[:, -1] + 1).masked_fill(most != least, 0)
    return frame, patch, count

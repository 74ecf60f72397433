"""Rankings with a say in who comes first: a floor for every image, and a rule for equal scores."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from foveate.group import all_heads
from foveate.method import Score
from foveate.option import Count, check_count
from foveate.types import Bool, Int, Observation, Ranking, TokenKinds

__all__ = ["PerImage", "Spread"]


@dataclass(frozen=True, slots=True)
class PerImage:
    """The same ranking, but the best `floor` candidates of every image or video go last.

    Which those are is decided by the mean of the scores over heads, alike for all heads.
    """

    score: Score
    floor: Count

    def __post_init__(self) -> None:
        check_count("floor", self.floor, least=1)

    def rows(self, kinds: TokenKinds) -> Bool[Tensor, "B T"] | None:
        """Return the rows that the score reads."""
        return self.score.rows(kinds)

    def __call__(self, observation: Observation, tiers: Int[Tensor, "B T"]) -> Ranking:
        """Return the ranking with the best of each image in tier 1."""
        ranking = self.score(observation, tiers)
        span = observation.kinds.span
        worth = all_heads(ranking.scores, observation.group).mean(1)
        going = (ranking.tiers == 0) & (span >= 0)
        # By image, then by worth: the place within the image is the place minus the image's first.
        order = worth.argsort(dim=-1, descending=True, stable=True)
        image = torch.where(going, span, span.shape[-1]).gather(-1, order)
        image, second = image.sort(dim=-1, stable=True)
        order = order.gather(-1, second)
        place = torch.arange(order.shape[-1], device=order.device).expand_as(order)
        first = torch.ones_like(image, dtype=torch.bool)
        first[:, 1:] = image[:, 1:] != image[:, :-1]
        within = place - torch.where(first, place, 0).cummax(-1).values
        best = torch.zeros_like(going).scatter(-1, order, within < min(self.floor, span.shape[-1]))
        return replace(ranking, tiers=torch.where(going & best, 1, ranking.tiers))


@dataclass(frozen=True, slots=True)
class Spread:
    """The same ranking, but equal scores stay spread over the candidates instead of the first ones.

    Candidates come in the order of their number's bits reversed: 0, 1/2, 1/4, 3/4, 1/8 ... of the
    way, so that what a small budget keeps is part of what a larger one keeps.
    """

    score: Score

    def rows(self, kinds: TokenKinds) -> Bool[Tensor, "B T"] | None:
        """Return the rows that the score reads."""
        return self.score.rows(kinds)

    def __call__(self, observation: Observation, tiers: Int[Tensor, "B T"]) -> Ranking:
        """Return the ranking with its rule for equal scores."""
        ranking = self.score(observation, tiers)
        number = (ranking.candidates.cumsum(-1) - 1).clamp(min=0)
        bits = max(1, ranking.candidates.shape[-1]).bit_length()
        turned = torch.zeros_like(number)
        for bit in range(bits):
            turned |= (number >> bit & 1) << (bits - 1 - bit)
        return replace(ranking, ties=turned)

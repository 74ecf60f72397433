"""How much a layer looks at its candidates, and how unevenly: one number each per row."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from foveate.group import all_heads
from foveate.method import Score
from foveate.option import Choice, check_choice
from foveate.types import Bool, Float, Int, Observation, Ranking, TokenKinds

__all__ = ["Described", "skewness"]

SPACES = ("raw", "log")
FLAT = 1e-6  # of the largest value: a smaller spread is rounding


@dataclass(frozen=True, slots=True)
class Described:
    """The same ranking, with "strength" and "skewness" of the head-mean scores I as statistics.

    `strength = sum_j I[j]`, `skewness = n / ((n - 1)(n - 2)) * sum_j ((I[j] - mean) / std)^3` with
    the unbiased std; 0 for fewer than three candidates and for equal scores. With `space="log"`
    the skewness is that of log I.
    """

    score: Score
    space: Choice = "raw"

    def __post_init__(self) -> None:
        check_choice("space", self.space, SPACES)

    def rows(self, kinds: TokenKinds) -> Bool[Tensor, "B T"] | None:
        """Return the rows that the score reads."""
        return self.score.rows(kinds)

    def __call__(self, observation: Observation, tiers: Int[Tensor, "B T"]) -> Ranking:
        """Return the ranking with its statistics."""
        ranking = self.score(observation, tiers)
        importance = all_heads(ranking.scores, observation.group).mean(1)
        # Sums of thousands of small numbers: in double where the device has it.
        importance = importance if importance.device.type == "mps" else importance.double()
        strength = importance.masked_fill(~ranking.candidates, 0).sum(-1)
        values = importance
        if self.space == "log":
            values = importance.clamp(min=torch.finfo(torch.float32).tiny).log()
        stats = {"strength": strength, "skewness": skewness(values, ranking.candidates)}
        return replace(ranking, stats={**ranking.stats, **stats})


def skewness(
    values: Float[Tensor, "*batch T"], among: Bool[Tensor, "*batch T"]
) -> Float[Tensor, "*batch"]:
    """Return the adjusted Fisher-Pearson coefficient of the values `among` each row."""
    n = among.sum(-1).to(values.dtype)
    values = values.masked_fill(~among, 0)
    mean = values.sum(-1, keepdim=True) / n.clamp(min=1)[..., None]
    off = (values - mean).masked_fill(~among, 0)
    spread = off.abs().amax(-1) if values.shape[-1] else off.sum(-1)
    largest = values.abs().amax(-1) if values.shape[-1] else spread
    flat = (n < 3) | (spread <= FLAT * largest)
    std = (off.square().sum(-1) / (n - 1).clamp(min=1)).sqrt().masked_fill(flat, 1)
    cubes = (off / std[..., None]).pow(3).sum(-1)
    factor = n / ((n - 1) * (n - 2)).masked_fill(n < 3, 1)
    return (factor * cubes).masked_fill(flat, 0)

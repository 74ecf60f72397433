"""Scores raised by what is there, whoever looks."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from foveate.method import Score
from foveate.option import Number, check_number
from foveate.score.mixture import mean_size, stretched
from foveate.score.norms import lengths
from foveate.types import Bool, Int, Observation, Ranking, TokenKinds

__all__ = ["Valued"]


@dataclass(frozen=True, slots=True)
class Valued:
    """The scores A, and `weight` times lengths of values |v|, of what may go.

    Lengths are stretched to 0..1 in every key-value head, and then scaled to the mean of A.
    """

    score: Score
    weight: Number = 1.0

    def __post_init__(self) -> None:
        check_number("weight", self.weight)

    def rows(self, kinds: TokenKinds) -> Bool[Tensor, "B T"] | None:
        """Return the rows that the score reads."""
        return self.score.rows(kinds)

    def __call__(self, observation: Observation, tiers: Int[Tensor, "B T"]) -> Ranking:
        """Return the ranking with raised scores."""
        ranking = self.score(observation, tiers)
        own, going = ranking.scores, ranking.candidates
        going = going if going.ndim == 3 else going[:, None]
        values = lengths(observation.values, observation.kinds.valid)
        scores = own + stretched(values, going, self.weight * mean_size(own, going))
        return replace(ranking, scores=scores)

"""One token of a ranking alone: how good is what a method puts first, second, ... ?"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from foveate.budget import Uniform
from foveate.errors import InputError
from foveate.eval.entry import Entry, Keep
from foveate.method import Method, Score
from foveate.reduce import Evict
from foveate.schedule import AfterPrefill
from foveate.scope import Visual
from foveate.types import Bool, Int, Observation, Ranking, TokenKinds

__all__ = ["Nth", "Single"]


@dataclass(frozen=True)
class Nth:
    """The token on place `place` of another score's order is worth 1, all others 0.

    Places count from 1, earlier positions first where scores are equal; the last token where there
    are fewer.
    """

    score: Score
    place: int

    def rows(self, kinds: TokenKinds) -> Bool[Tensor, "B T"] | None:
        """Return the query rows that the other score reads."""
        return self.score.rows(kinds)

    def __call__(self, observation: Observation, tiers: Int[Tensor, "B T"]) -> Ranking:
        """Return the ranking of one layer."""
        ranking = self.score(observation, tiers)
        going = ranking.candidates if ranking.candidates.ndim == 3 else ranking.candidates[:, None]
        scores = ranking.scores.masked_fill(~going, -torch.inf)
        order = scores.argsort(dim=-1, descending=True, stable=True)
        place = going.sum(-1).clamp(min=1, max=self.place) - 1
        place = place.expand(scores.shape[:2])[..., None]
        alone = torch.zeros_like(scores).scatter_(-1, order.gather(-1, place), 1.0)
        return replace(ranking, scores=alone, ties=None, quota=None, mass=None)


@dataclass(frozen=True)
class Single(Entry):
    """A preset's ranking of visual tokens, of which each layer keeps the one on place `keep`."""

    def method(self, keep: Keep) -> Method | None:
        """Return the method that keeps that token alone, with all text."""
        if not isinstance(keep, int) or isinstance(keep, bool) or keep < 1:
            raise InputError(f"keep={keep!r} is no place in a ranking; give 1, 2, 3 ...")
        given = Entry(self.preset, self.options).method(0.5)
        if given is None:
            raise InputError("the full cache ranks nothing; give another preset")
        return Method(Visual(), Nth(given.score, keep), Uniform(1), Evict(), AfterPrefill())

"""Scores of keys and values alone: how long they are, and which way they point."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from foveate.score.directions import along, unit_mean
from foveate.types import Bool, Float, Int, Observation, Ranking, TokenKinds

__all__ = ["KeyDifference", "KeyNorm", "ValueNorm", "lengths"]


@dataclass(frozen=True, slots=True)
class KeyNorm:
    """`-|k[j]|`: what has a short key is looked at most (arXiv 2406.11430)."""

    def rows(self, kinds: TokenKinds) -> None:
        """Return None: no query is read."""

    def __call__(self, observation: Observation, tiers: Int[Tensor, "B T"]) -> Ranking:
        """Return the ranking of one layer."""
        scores = -lengths(observation.keys, observation.kinds.valid)
        return Ranking(scores, tiers, observation.layer)


@dataclass(frozen=True, slots=True)
class ValueNorm:
    """`|v[j]|`: a long value moves the output."""

    def rows(self, kinds: TokenKinds) -> None:
        """Return None: no query is read."""

    def __call__(self, observation: Observation, tiers: Int[Tensor, "B T"]) -> Ranking:
        """Return the ranking of one layer."""
        scores = lengths(observation.values, observation.kinds.valid)
        return Ranking(scores, tiers, observation.layer)


@dataclass(frozen=True, slots=True)
class KeyDifference:
    """`-cos(k[j], sum of all unit keys of the row)`: what is unlike the rest (arXiv 2504.15364)."""

    def rows(self, kinds: TokenKinds) -> None:
        """Return None: no query is read."""

    def __call__(self, observation: Observation, tiers: Int[Tensor, "B T"]) -> Ranking:
        """Return the ranking of one layer."""
        keys, valid = observation.keys, observation.kinds.valid
        mean = unit_mean(keys, valid)
        cosine = along(keys, torch.nn.functional.normalize(mean, dim=-1))
        scores = -cosine.masked_fill(~valid[:, None], 0)
        return Ranking(scores, tiers, observation.layer)


def lengths(
    entries: Float[Tensor, "B H T D"], among: Bool[Tensor, "B T"]
) -> Float[Tensor, "B H T"]:
    """Return the Euclidean lengths in float32, zero at other positions whatever they hold."""
    norms = torch.linalg.vector_norm(entries, dim=-1, dtype=torch.float32)
    return norms.masked_fill(~among[:, None], 0)

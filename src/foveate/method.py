"""A method is a value made of five values; `plan` and `apply` are where they meet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from foveate.errors import InputError
from foveate.types import Bool, Float, Int, LayerKV, Observation, Plan, Ranking, TokenKinds


@runtime_checkable
class Scope(Protocol):
    """Which tokens may go, and in which order."""

    def tiers(self, kinds: TokenKinds) -> Int[Tensor, "B T"]:
        """Return -1 for pads, 0 for what goes first, 1 for what goes last, 2 for what stays."""


@runtime_checkable
class Score(Protocol):
    """How much every candidate is worth."""

    def rows(self, kinds: TokenKinds) -> Bool[Tensor, "B T"] | None:
        """Return the query rows that the score reads, or None if it reads no queries."""

    def __call__(self, observation: Observation, tiers: Int[Tensor, "B T"]) -> Ranking:
        """Return the ranking of one layer."""


@runtime_checkable
class Budget(Protocol):
    """How many candidates stay, per layer, row and key-value head."""

    @property
    def keep(self) -> float | int:
        """Return the share of the candidates (float), or tokens per head and layer (int)."""

    def __call__(self, rankings: Sequence[Ranking]) -> Int[Tensor, "N B H"]:
        """Return the counts of kept candidates."""


@runtime_checkable
class Reduce(Protocol):
    """What becomes of the rest."""

    def __call__(
        self,
        observation: Observation,
        scores: Float[Tensor, "B H T"],
        keep: Bool[Tensor, "B H T"],
    ) -> LayerKV:
        """Return the keys and values that are stored."""


@runtime_checkable
class When(Protocol):
    """At which events the cache is compressed."""

    @property
    def recompress(self) -> bool:
        """Return whether a later turn's new visual tokens are compressed too."""

    @property
    def positions(self) -> str:
        """Return "original" or "compacted": where decoding continues."""


@dataclass(frozen=True)
class Method:
    """A method: which tokens may go, their worth, how many stay, what becomes of the rest, when."""

    scope: Scope
    score: Score
    budget: Budget
    reduce: Reduce
    when: When

    @property
    def keeps_everything(self) -> bool:
        """Return whether nothing can go, so that nothing needs scoring."""
        return isinstance(self.budget.keep, float) and self.budget.keep >= 1.0

    def rank(self, observation: Observation) -> Ranking:
        """Return how one layer would choose."""
        return self.score(observation, self.scope.tiers(observation.kinds))


def select(ranking: Ranking, counts: Int[Tensor, "B H"]) -> Bool[Tensor, "B H T"]:
    """Return what is kept: all of tier 2, and the best `counts` candidates, tier 1 before tier 0.

    Equal scores are resolved towards the earlier position, or as `ranking.ties` says.
    """
    # heads that rank alike are ranked once
    scores = ranking.scores if ranking.scores.stride(1) else ranking.scores[:, :1]
    candidates = ranking.candidates[:, None].expand_as(scores)
    scores = scores.masked_fill(~candidates, -torch.inf)
    if ranking.ties is None:
        order = scores.argsort(dim=-1, descending=True, stable=True)
    else:
        first = ranking.ties.argsort(dim=-1, stable=True)[:, None].expand_as(scores)
        order = scores.gather(-1, first).argsort(dim=-1, descending=True, stable=True)
        order = first.gather(-1, order)
    tiers = ranking.tiers[:, None].expand_as(order).masked_fill(~candidates, -1)
    order = order.gather(-1, tiers.gather(-1, order).argsort(dim=-1, descending=True, stable=True))
    places = torch.arange(order.shape[-1], device=order.device).expand_as(order)
    rank = torch.empty_like(order).scatter_(-1, order, places)
    return (candidates & (rank < counts[..., None])) | (ranking.tiers == 2)[:, None]


def decide(method: Method, rankings: Sequence[Ranking]) -> Plan:
    """Return the plan for layers that are ranked already."""
    counts = [
        count.to(ranking.scores.device)
        for ranking, count in zip(rankings, method.budget(rankings), strict=True)
    ]
    keep = tuple(select(ranking, count) for ranking, count in zip(rankings, counts, strict=True))
    explain = tuple(
        {**ranking.stats, "budget": count} for ranking, count in zip(rankings, counts, strict=True)
    )
    return Plan(keep, explain, tuple(ranking.scores for ranking in rankings))


def plan(method: Method, observations: Sequence[Observation]) -> Plan:
    """Return which positions every layer, row and head keeps.

    Raises `InputError` without layers, or where layers do not belong to the same prompts.
    """
    if not observations:
        raise InputError("no observations came; give one per layer")
    batches = sorted({len(observation.keys) for observation in observations})
    if len(batches) > 1:
        raise InputError(f"layers have batches of {batches}; give all layers of the same prompts")
    return decide(method, [method.rank(observation) for observation in observations])


def apply(method: Method, observations: Sequence[Observation], plan: Plan) -> list[LayerKV]:
    """Return the kept (and merged) keys and values of every layer.

    Raises `InputError` for a plan that is not one of `plan` for these observations.
    """
    if not len(plan.scores) == len(plan.keep) == len(observations):
        raise InputError(
            f"the plan has {len(plan.keep)} layers and {len(plan.scores)} scores for "
            f"{len(observations)} observations; give what plan(method, observations) returned"
        )
    return [
        method.reduce(observation, scores, keep)
        for observation, scores, keep in zip(observations, plan.scores, plan.keep, strict=True)
    ]

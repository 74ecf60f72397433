"""A method is a value made of five values; `plan` and `apply` are where they meet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from torch import Tensor

from foveate.errors import InputError, MethodError
from foveate.line import Line
from foveate.types import (
    PAD,
    STAYS,
    Bool,
    Float,
    Int,
    LayerKV,
    Observation,
    Plan,
    Ranking,
    Stored,
    TokenKinds,
)


@runtime_checkable
class Scope(Protocol):
    """Which tokens may go, and in which order."""

    def tiers(
        self, kinds: TokenKinds, prompt: Int[Tensor, " B"] | None = None
    ) -> Int[Tensor, "B T"]:
        """Return the tier of every position, as `Ranking` lists them.

        `prompt` is the number of tokens that shares are of, all in `kinds` if None.
        """


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
class Bounded(Protocol):
    """A budget that knows upper bounds of its counts before all layers are ranked."""

    def bounds(self, rankings: Sequence[Ranking], layers: int) -> Int[Tensor, "m B H"] | None:
        """Return what the first m = len(rankings) of `layers` layers can keep at most.

        Whatever the other layers will say, the counts are no higher; None: no bound is known.
        """


@runtime_checkable
class Fitted(Protocol):
    """A score or budget that may hold numbers measured on one model."""

    def check(self, model_name: str | None, layers: int, query_heads: int, kv_heads: int) -> None:
        """Raise `MethodError` if they are another model's; without a name, by shape alone."""


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
class Evicting(Protocol):
    """A reduce that may leave what is kept as it is, whatever the rest was."""

    @property
    def evicts(self) -> bool:
        """Return whether it does, so that the rest may go before the choice is final.

        It is then not called for layers of which something went: one that does more says False.
        """


@runtime_checkable
class Follow(Protocol):
    """How the slots of a layer are ranked while decoding."""

    @property
    def reads(self) -> str:
        """Return which new query rows it reads: "none", the "newest" of every row, or "all"."""

    def __call__(self, stored: Stored, tiers: Int[Tensor, "B H L"]) -> Ranking:
        """Return the ranking of the slots, with the state that goes on."""


@runtime_checkable
class When(Protocol):
    """At which events the cache is compressed."""

    @property
    def recompress(self) -> bool:
        """Return whether a later turn's new visual tokens are compressed too."""

    @property
    def positions(self) -> str:
        """Return "original" or "compacted": where decoding continues."""

    @property
    def follow(self) -> Follow | None:
        """Return how slots are ranked while decoding, or None if nothing goes then."""

    @property
    def every(self) -> int:
        """Return how many new tokens come between two looks while decoding."""

    @property
    def grows(self) -> bool:
        """Return whether the room grows in proportion to what was seen."""


@dataclass(frozen=True)
class Method:
    """A method: which tokens may go, their worth, how many stay, what becomes of the rest, when."""

    scope: Scope
    score: Score
    budget: Budget
    reduce: Reduce
    when: When

    def __post_init__(self) -> None:
        for name in PARTS:
            check_part(name, getattr(self, name))

    @property
    def keeps_everything(self) -> bool:
        """Return whether nothing can go, so that nothing needs scoring."""
        return isinstance(self.budget.keep, float) and self.budget.keep >= 1.0

    def rank(self, observation: Observation) -> Ranking:
        """Return how one layer would choose."""
        ranking = self.score(observation, self.scope.tiers(observation.kinds))
        wanted = observation.keys.shape[:3]
        if not isinstance(ranking, Ranking) or ranking.scores.shape != wanted:
            came = [*ranking.scores.shape] if isinstance(ranking, Ranking) else type(ranking)
            raise MethodError(
                f"{self.score!r} returned {came}; give a foveate.types.Ranking of scores "
                f"[B, H, T], here {[*wanted]}"
            )
        group = observation.group
        return ranking if group is None else replace(ranking, group=group)


PARTS = {"scope": Scope, "score": Score, "budget": Budget, "reduce": Reduce, "when": When}


def check_part(name: str, value: object) -> None:
    """Raise `MethodError` if a value cannot be that part of a method."""
    if isinstance(value, type):
        raise MethodError(f"{name}={value.__name__} is a class; give {value.__name__}(...)")
    kind = PARTS[name]
    told = [word for word in vars(kind) if word == "__call__" or word[0] != "_"]
    lacking = ", ".join(word for word in told if not hasattr(value, word))
    if lacking:
        needed = f"write it as foveate.method.{kind.__name__} says"
        raise MethodError(f"{name}={value!r} lacks {lacking}; {needed}")


def everything(ranking: Ranking) -> Int[Tensor, "B H"]:
    """Return how many tokens a budget could hold at most."""
    counted = ((ranking.tiers != PAD) & (ranking.tiers != STAYS)).sum(-1)
    counted = counted if counted.ndim == 2 else counted[:, None]
    return counted.expand(-1, ranking.scores.shape[1])


def pinned_count(ranking: Ranking) -> Int[Tensor, " B"]:
    """Return how many tokens the budget has to hold anyway."""
    pinned = ranking.pinned
    return (pinned if pinned.ndim == 2 else pinned[:, 0]).sum(-1)


def decide(
    method: Method, rankings: Sequence[Ranking], lines: Sequence[Line] | None = None
) -> Plan:
    """Return the plan for layers that are ranked already, and perhaps in line."""
    whole = method.keeps_everything  # whatever a budget's rounding would make of that
    budget = [everything(x) for x in rankings] if whole else method.budget(rankings)
    counts = [
        count.to(ranking.scores.device) for ranking, count in zip(rankings, budget, strict=True)
    ]
    lines = [Line(ranking) for ranking in rankings] if lines is None else lines
    keep = tuple(line.best(count) for line, count in zip(lines, counts, strict=True))
    explain = tuple(
        {**ranking.stats, "pinned": pinned_count(ranking), "budget": count}
        for ranking, count in zip(rankings, counts, strict=True)
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

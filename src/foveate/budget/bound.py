"""What every budget's bounds have in common: the layers to come, and whole numbers at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from foveate.budget.total import Supply, supply
from foveate.method import Bounded, Budget, everything
from foveate.types import Float, Int, Ranking

__all__ = ["Given", "above", "all_layers", "bounded", "given_bounds", "inner_bounds"]

ROUNDING = 1e-6  # of a token: two ways to the same real number agree to this


@runtime_checkable
class Given(Budget, Protocol):
    """A budget that depends on the tokens there are, and not on what layers saw."""

    def given(self, tokens: Supply) -> Int[Tensor, "B N"]:
        """Return the counts of all layers, alike for all heads."""


def bounded(
    budget: Budget,
    rankings: Sequence[Ranking],
    layers: int,
    known: Callable[[Supply], Int[Tensor, "B m *H"] | None],
) -> Int[Tensor, "m B H"] | None:
    """Return the bounds `known` [B, m] or [B, m, H] tells of the supply of all layers.

    They are in host memory. A budget of everything keeps everything; the last layer makes bounds
    the counts themselves; and nothing is known where layers differ in their tokens.
    """
    if isinstance(budget.keep, float) and budget.keep >= 1.0:
        return torch.stack([everything(ranking) for ranking in rankings]).cpu()
    if len(rankings) >= layers:
        return budget(rankings).cpu()
    tokens = all_layers(rankings, layers)
    counts = None if tokens is None else known(tokens)
    if counts is None:
        return None
    if counts.ndim == 2:
        counts = counts[..., None].expand(-1, -1, rankings[0].scores.shape[1])
    return counts.transpose(0, 1)


def given_bounds(
    budget: Given, rankings: Sequence[Ranking], layers: int
) -> Int[Tensor, "m B H"] | None:
    """Return the counts of the first layers of all."""
    return bounded(budget, rankings, layers, lambda all: budget.given(all)[:, : len(rankings)])


def inner_bounds(
    budget: Budget, rankings: Sequence[Ranking], layers: int
) -> Int[Tensor, "m B H"] | None:
    """Return the bounds of a budget inside another one."""
    return budget.bounds(rankings, layers) if isinstance(budget, Bounded) else None


def all_layers(rankings: Sequence[Ranking], layers: int) -> Supply | None:
    """Return what there is in all layers, if those to come have the tokens of those known.

    None if those known differ already.
    """
    tokens = supply(rankings)
    for found in (tokens.going, tokens.pinned):
        if not bool((found == found[:, :1]).all()):
            return None
    return Supply(*(x[:, :1].expand(-1, layers) for x in (tokens.going, tokens.pinned)))


def above(shares: Float[Tensor, "*b n"], cap: Int[Tensor, "*b n"]) -> Int[Tensor, "*b n"]:
    """Return whole numbers that rounding such shares cannot exceed.

    Largest remainders round a real number to one of its two neighbours.
    """
    return (shares + ROUNDING).ceil().long().minimum(cap)

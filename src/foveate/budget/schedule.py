"""Budgets that are given: they depend on the number of a layer, not on what it saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from foveate.budget.bound import given_bounds
from foveate.budget.total import Supply, head_equal, spread, supply, totals
from foveate.errors import MethodError
from foveate.option import Count, Keep, Number, check_count, plain_keep
from foveate.types import Int, Ranking

__all__ = ["Pyramid", "Steps", "Uniform"]


@dataclass(frozen=True, slots=True)
class Uniform:
    """The same in every layer; what does not divide goes to the earlier ones."""

    keep: Keep
    k_min: Count = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "keep", plain_keep(self.keep))
        check_count("k_min", self.k_min)

    def __call__(self, rankings: Sequence[Ranking]) -> Int[Tensor, "N B H"]:
        """Return the counts of kept candidates."""
        return head_equal(self.given(supply(rankings)), rankings)

    def given(self, tokens: Supply) -> Int[Tensor, "B N"]:
        """Return the counts of all layers."""
        weights = torch.ones(tokens.going.shape)
        return spread(self.keep, weights, tokens, self.k_min)

    def bounds(self, rankings: Sequence[Ranking], layers: int) -> Int[Tensor, "m B H"] | None:
        """Return the counts themselves: no layer's ranking changes them."""
        return given_bounds(self, rankings, layers)


@dataclass(frozen=True, slots=True)
class Pyramid:
    """Linearly fewer in later layers: from `(2 - 1/beta) n` to `n / beta`, n being the average.

    Where the first layer would keep more than there is, it keeps all V and the last one `2n - V`,
    so that the average stays (arXiv 2406.02069).
    """

    keep: Keep
    beta: Number = 20.0
    k_min: Count = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "keep", plain_keep(self.keep))
        check_count("k_min", self.k_min)
        check_beta(self.beta)

    def __call__(self, rankings: Sequence[Ranking]) -> Int[Tensor, "N B H"]:
        """Return the counts of kept candidates."""
        return head_equal(self.given(supply(rankings)), rankings)

    def given(self, tokens: Supply) -> Int[Tensor, "B N"]:
        """Return the counts of all layers."""
        layers = tokens.going.shape[-1]
        average = tokens.base(self.keep).double()[:, None] / layers
        most = torch.minimum((2 - 1 / self.beta) * average, tokens.going[:, :1].double())
        least = (2 * average - most).clamp(min=0)
        step = torch.linspace(0, 1, layers, dtype=torch.float64)
        weights = most + (least - most) * step
        return spread(self.keep, weights, tokens, self.k_min)

    def bounds(self, rankings: Sequence[Ranking], layers: int) -> Int[Tensor, "m B H"] | None:
        """Return the counts themselves: no layer's ranking changes them."""
        return given_bounds(self, rankings, layers)


@dataclass(frozen=True, slots=True)
class Steps:
    """A pyramid in whole steps, as the program of arXiv 2406.02069 has it: its total is not exact.

    With n tokens of what may go on average the layers have `most - l * ((most - least) // (N - 1))`
    of V, where `least = n // beta` and `most = 2n - least`, or V and 2n - V where that is less.
    Prompts of less than 2n tokens have n in every layer, and those of up to `keep` tokens all.
    """

    keep: Keep
    beta: Number = 20.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "keep", plain_keep(self.keep))
        check_beta(self.beta)

    def __call__(self, rankings: Sequence[Ranking]) -> Int[Tensor, "N B H"]:
        """Return the counts of kept candidates."""
        return head_equal(self.given(supply(rankings)), rankings)

    def given(self, tokens: Supply) -> Int[Tensor, "B N"]:
        """Return the counts of all layers."""
        N = tokens.going.shape[-1]
        there, pinned = tokens.going, tokens.pinned
        keep = self.keep
        # one layer's budget, in every layer the same formula
        cap = torch.stack([totals(keep, x[:, None]) for x in (there + pinned).unbind(-1)], -1)
        base = (cap - pinned).clamp(min=0)
        least = torch.div(base.double(), self.beta, rounding_mode="floor").long()
        most = 2 * base - least
        wide = most >= there
        most = torch.where(wide, there, most)
        least = torch.where(wide, 2 * base - there, least)
        step = (most - least) // max(N - 1, 1)
        counts = most - torch.arange(N) * step
        flat = (there + pinned < 2 * base) | (N == 1)
        counts = pinned + torch.where(flat, base, counts).clamp(min=0).minimum(there)
        short = tokens.with_pinned(keep, torch.zeros_like(counts))
        return torch.where(cap < pinned, short, counts)

    def bounds(self, rankings: Sequence[Ranking], layers: int) -> Int[Tensor, "m B H"] | None:
        """Return the counts themselves: no layer's ranking changes them."""
        return given_bounds(self, rankings, layers)


def check_beta(beta: object) -> None:
    """Raise `MethodError` unless `beta` is a finite number of at least 1."""
    number = isinstance(beta, (int, float)) and not isinstance(beta, bool)
    if not number or not 1 <= beta < float("inf"):  # type: ignore[operator]
        raise MethodError(
            f"beta={beta!r} cannot be used; give a number of at least 1 (1 is uniform)"
        )

"""Layer sizes that were measured before, read from a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from foveate.budget.bound import bounded
from foveate.budget.total import Supply, head_equal, spread, supply
from foveate.calibration.tables import Table
from foveate.errors import MethodError
from foveate.option import Keep, plain_keep
from foveate.types import Int, Ranking

__all__ = ["Sizes"]


@dataclass(frozen=True, slots=True)
class Sizes:
    """In proportion to `shares`, one per decoder layer of the model, with an exact total.

    Layers that nothing compresses have share 1 there. Pinned tokens come on top of the proportion.
    `table` is what the shares were read from, if they were.
    """

    keep: Keep
    shares: tuple[float, ...]
    table: Table | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "keep", plain_keep(self.keep))
        if not isinstance(self.shares, tuple) or not any(self.shares):
            raise MethodError(
                f"shares={self.shares!r} cannot be used; give a tuple with a share for every layer"
            )

    def check(self, model_name: str | None, layers: int, query_heads: int, kv_heads: int) -> None:
        """Raise `MethodError` if the table is of another model."""
        if self.table is not None:
            self.table.check(model_name, layers, query_heads, kv_heads)

    def __call__(self, rankings: Sequence[Ranking]) -> Int[Tensor, "N B H"]:
        """Return the counts of kept candidates; raise `MethodError` for sizes of another model."""
        layers = [ranking.layer for ranking in rankings]
        untold = {number for number, share in enumerate(self.shares) if share < 1} - set(layers)
        if untold or max(layers) >= len(self.shares):
            raise MethodError(
                f"there are sizes of {len(self.shares)} layers, and {len(layers)} layers, numbers "
                f"{min(layers)} to {max(layers)}, are compressed here; make the table for this "
                "model with `foveate calibrate sizes`"
            )
        shares = [self.shares[number] for number in layers]
        return head_equal(self.counts(shares, supply(rankings)), rankings)

    def counts(self, shares: Sequence[float], tokens: Supply) -> Int[Tensor, "B N"]:
        """Return the counts of layers with these shares."""
        weights = torch.tensor(shares, dtype=torch.float64)
        return spread(self.keep, weights.expand(tokens.going.shape), tokens)

    def bounds(self, rankings: Sequence[Ranking], layers: int) -> Int[Tensor, "m B H"] | None:
        """Return the counts, and one token more: the shares of the layers to come are known.

        Those are all below 1 that did not come yet, and otherwise 1. Where layers with share 1 lie
        is not known, and so to whom the last tokens go.
        """
        numbers = [ranking.layer for ranking in rankings]
        rest = [x for i, x in enumerate(self.shares) if x < 1 and i not in numbers]
        others = layers - len(numbers) - len(rest)
        if others < 0 or max(numbers) >= len(self.shares):
            return None
        shares = [*(self.shares[number] for number in numbers), *rest, *[1.0] * others]

        def known(tokens: Supply) -> Int[Tensor, "B m"]:
            counts = self.counts(shares, tokens)
            most = tokens.with_pinned(self.keep, tokens.going)
            return torch.minimum(counts + 1, most)[:, : len(numbers)]

        return bounded(self, rankings, layers, known)

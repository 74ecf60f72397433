"""Budgets of heads that were measured before, read from a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from foveate.budget.bound import above, bounded
from foveate.budget.mixed import Basin, mixed
from foveate.budget.total import Supply, supply
from foveate.calibration.tables import Table
from foveate.errors import MethodError
from foveate.group import own_heads
from foveate.kernels.allocate import allocate
from foveate.option import (
    Choice,
    Flag,
    Keep,
    Share,
    check_choice,
    check_flag,
    check_share,
    plain_keep,
)
from foveate.types import Float, Int, Ranking

__all__ = ["HeadTable"]

GRAIN = 2**30  # numbers that differ by less than 1 / GRAIN count as equal


@dataclass(frozen=True, slots=True)
class HeadTable:
    """In proportion to a number per head over all layers, after a share `rho` alike for all.

    With M tokens per head of what may go, head h of layer l gets `rho M + s[l, h] (1 - rho) M N H`,
    where s sums to 1, rounded, and all there is at most. What a head cannot take is lost, or goes
    to the others in proportion (`redistribute`; the total is then exact). `table`: measured scores,
    "flat" for the same number for all, or "random" for a fixed draw from 0 to 1.
    """

    keep: Keep
    table: Table | Choice = "flat"
    rho: Share = 0.1
    redistribute: Flag = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "keep", plain_keep(self.keep))
        if not isinstance(self.table, Table):
            check_choice("table", self.table, ("flat", "random"))
        check_share("rho", self.rho)
        check_flag("redistribute", self.redistribute)

    def __call__(self, rankings: Sequence[Ranking]) -> Int[Tensor, "N B H"]:
        """Return the counts of kept candidates; raise `MethodError` for another model's table."""
        numbers, H = [ranking.layer for ranking in rankings], all_of(rankings)
        counts = self.counts(self.scores(numbers, H), supply(rankings))
        return own_heads(counts, rankings[0].group).transpose(0, 1).to(rankings[0].scores.device)

    def counts(self, scores: Float[Tensor, "N H"], tokens: Supply) -> Int[Tensor, "B N H"]:
        """Return the counts of heads with these numbers, which sum to 1."""
        H, base = scores.shape[-1], tokens.base(self.keep)
        mean = base.double()[:, None, None] / tokens.going.shape[-1]
        counts = self.rho * mean + scores * ((1 - self.rho) * mean * scores.numel())  # [B, N, H]
        cap = tokens.going[:, : len(scores), None].expand(counts.shape)
        if self.redistribute:
            flat, zero = cap.flatten(1), torch.zeros_like(cap.flatten(1))
            whole = allocate(counts.flatten(1), H * base, flat, zero).view(counts.shape)
        else:
            # Halves go to even numbers, whatever the last digits of the product say.
            whole = ((counts * GRAIN).round() / GRAIN).round().long().minimum(cap)
        pinned = tokens.with_pinned(self.keep, torch.zeros_like(tokens.going))
        return whole + pinned[..., None]

    def bounds(self, rankings: Sequence[Ranking], layers: int) -> Int[Tensor, "m B H"] | None:
        """Return the counts, and one token more: the numbers of the layers to come are known.

        Those are the other rows of the table, and 0 in layers without a row. Of a random table the
        layers to come are not known; that they draw nothing is then the most for the known heads,
        or, where heads take what others cannot, the highest of all mixtures of even and own parts.
        """
        numbers, m, H = [ranking.layer for ranking in rankings], len(rankings), all_of(rankings)
        scores = self.all_scores(numbers, layers, H)
        if scores is None:
            return None

        def known(tokens: Supply) -> Int[Tensor, "B m H"]:
            cap = tokens.with_pinned(self.keep, tokens.going)[:, :m, None]
            if self.table == "random" and self.redistribute:
                counts = self.drawn(scores[:m], tokens)
            else:
                counts = self.counts(scores, tokens)[:, :m]
            return own_heads(torch.minimum(counts + 1, cap), rankings[0].group)

        return bounded(self, rankings, layers, known)

    def all_scores(
        self, numbers: Sequence[int], layers: int, H: int
    ) -> Float[Tensor, "N H"] | None:
        """Return the numbers of all layers, those named first; None if the table is of others."""
        if not isinstance(self.table, Table):
            rows = self.scores(numbers if self.table == "random" else range(layers), H)
            return torch.cat([rows, rows.new_zeros(layers - len(rows), H)])
        rest = [i for i, row in enumerate(self.table.per_kv_head) if any(row) and i not in numbers]
        if max(numbers) >= self.table.layers or len(numbers) + len(rest) > layers:
            return None
        rows = self.scores([*numbers, *rest], H)
        return torch.cat([rows, rows.new_zeros(layers - len(rows), H)])

    def drawn(self, scores: Float[Tensor, "m H"], tokens: Supply) -> Int[Tensor, "B m H"]:
        """Return upper bounds of counts with an exact total, whatever the other layers draw."""
        m, H = scores.shape
        own = scores.flatten().expand(len(tokens.going), -1)
        total, cap = H * tokens.base(self.keep), tokens.going[:, 0]
        basin = Basin(total, cap, torch.zeros_like(cap), (tokens.going.shape[-1] - m) * H)
        found = mixed([torch.full_like(own, 1 / (m * H)), own], basin)
        counts = above(found, cap[:, None].expand_as(found))
        pinned = tokens.with_pinned(self.keep, torch.zeros_like(tokens.going))[:, :m]
        return counts.view(-1, m, H) + pinned[..., None]

    def scores(self, layers: Sequence[int], H: int) -> Float[Tensor, "N H"]:
        """Return the numbers of the layers that are compressed, with the sum 1."""
        if self.table == "random":
            made = torch.Generator().manual_seed(0)
            rows = torch.rand(max(layers) + 1, H, generator=made, dtype=torch.float64)[layers]
        elif isinstance(self.table, Table):
            rows = torch.tensor(fitting(self.table, layers, H), dtype=torch.float64)
        else:
            rows = torch.ones(len(layers), H, dtype=torch.float64)
        total = rows.sum()
        return rows / total if total > 0 else torch.full_like(rows, 1 / rows.numel())

    def check(self, model_name: str | None, layers: int, query_heads: int, kv_heads: int) -> None:
        """Raise `MethodError` if the table is of another model."""
        if isinstance(self.table, Table):
            self.table.check(model_name, layers, query_heads, kv_heads)


def all_of(rankings: Sequence[Ranking]) -> int:
    """Return how many key-value heads a layer has in all processes."""
    group = rankings[0].group
    return rankings[0].scores.shape[1] * (1 if group is None else group.size)


def fitting(table: Table, layers: Sequence[int], H: int) -> list[tuple[float, ...]]:
    """Return the table's rows of these layers; `MethodError` where it has others or other heads."""
    rows = table.per_kv_head
    untold = {number for number, row in enumerate(rows) if any(row)} - set(layers)
    if untold or max(layers) >= len(rows) or table.kv_heads != H:
        raise MethodError(
            f"the {table.kind} table of {table.model} has {table.layers} layers of "
            f"{table.kv_heads} key-value heads, and {len(layers)} layers, numbers {min(layers)} to "
            f"{max(layers)}, of {H} are compressed here; make one for this model with "
            "`foveate heads`"
        )
    return [rows[number] for number in layers]

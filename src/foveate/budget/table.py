"""Budgets of heads that were measured before, read from a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from foveate.budget.total import supply
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
        tokens = supply(rankings)
        device, group = rankings[0].scores.device, rankings[0].group
        H = rankings[0].scores.shape[1] * (1 if group is None else group.size)
        scores = self.scores([ranking.layer for ranking in rankings], H)
        base = tokens.base(self.keep)
        mean = base.double()[:, None, None] / len(rankings)
        counts = self.rho * mean + scores * ((1 - self.rho) * mean * scores.numel())  # [B, N, H]
        cap = tokens.going[..., None].expand(counts.shape)
        if self.redistribute:
            flat, zero = cap.flatten(1), torch.zeros_like(cap.flatten(1))
            whole = allocate(counts.flatten(1), H * base, flat, zero).view(counts.shape)
        else:
            # Halves go to even numbers, whatever the last digits of the product say.
            whole = ((counts * GRAIN).round() / GRAIN).round().long().minimum(cap)
        pinned = tokens.with_pinned(self.keep, torch.zeros_like(tokens.going))
        return own_heads((whole + pinned[..., None]).transpose(0, 1), group).to(device)

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

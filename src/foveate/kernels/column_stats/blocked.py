"""`column_stats` in blocks of query rows: one block of probabilities is in memory at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TypeVar

import torch
from torch import Tensor

from foveate.errors import InputError
from foveate.kernels.column_stats import walk
from foveate.kernels.column_stats.walk import Problem
from foveate.types import Bool, Float, Int

__all__ = ["column_stats", "row_blocks"]

LEAST_ROWS = 128  # of one product, query heads that share a key head together
Table = TypeVar("Table", Tensor, Tensor | None)


def column_stats(
    queries: Float[Tensor, "B Hq R D"],
    keys: Float[Tensor, "B H L D"],
    *,
    scaling: float,
    rows: Int[Tensor, "B R"],
    columns: Bool[Tensor, "B L"] | Bool[Tensor, "B Hq L"] | None = None,
    positions: Int[Tensor, "B L"] | Int[Tensor, "B H L"] | None = None,
    weights: Float[Tensor, "B R"] | Float[Tensor, "B X R"] | None = None,
    power: float = 1,
    lse: Float[Tensor, "B Hq R"] | None = None,
    group: bool = False,
) -> Float[Tensor, "B X L"]:
    """Return `sum_i weights[i] * p[i, j] ** power` for every key j, in float32.

    `p[i]` is the softmax of query row i over the `columns` (all, if None) at or before its own
    logical position `rows[i]`; -1 means that there is no such row. Keys lie at `positions`
    (0 .. L-1, if None), -1 being an empty slot. With `lse` the rows are normalised by that
    log-sum-exp instead of their own. `power` is 1, 2 or infinity, the last for the maximum of
    `weights[i] * p[i, j]`. With `group`, `p` is averaged over the query heads that share a key head
    before anything else, and X is H instead of Hq. Rows without weight, and keys outside the
    columns, are never looked at, whatever they hold.
    """
    if power not in (1, 2, math.inf):
        raise InputError(f"power={power!r} is not known; give 1, 2 or math.inf (the maximum)")
    H = keys.shape[1]
    weights = row_weights(weights, rows, H if group else queries.shape[1])
    out = torch.zeros(*weights.shape[:2], keys.shape[2], device=keys.device)
    for piece in pieces(queries, keys):
        cut(out, piece, H).copy_(
            summed(
                *used_rows(
                    cut(queries, piece, H),
                    cut(rows, piece, H),
                    cut(weights, piece, H),
                    cut(lse, piece, H),
                ),
                cut(keys, piece, H),
                cut(columns, piece, H),
                cut(positions, piece, H),
                scaling,
                power,
            )
        )
    return out


def summed(
    queries: Float[Tensor, "B Hq R D"],
    rows: Int[Tensor, "B R"],
    weights: Float[Tensor, "B X R"],
    lse: Float[Tensor, "B Hq R"] | None,
    keys: Float[Tensor, "B H L D"],
    columns: Bool[Tensor, "B L"] | Bool[Tensor, "B Hq L"] | None,
    positions: Int[Tensor, "B L"] | Int[Tensor, "B H L"] | None,
    scaling: float,
    power: float,
) -> Float[Tensor, "B X L"]:
    """Return the statistics of a piece; fewer heads of weights than of queries are groups."""
    B, H, L = keys.shape[:3]
    G, g = queries.shape[1] // H, weights.shape[1] // H
    weights = weights.unflatten(1, (H, g))
    problem = Problem.of(queries, keys, scaling, rows, weights != 0, columns, positions, lse)
    out = torch.zeros(B * H, g, problem.L, device=keys.device)
    for part, p in walk.blocks(problem):
        p = p.unflatten(1, (G, -1))
        weight = weights[..., part].flatten(0, 1)
        if g < G and power == 1:  # the mean is a sum with smaller weights
            p, weight = p.flatten(1, 2)[:, None], (weight / G).expand(-1, G, -1).flatten(1)[:, None]
        elif g < G:
            p = p.mean(1, keepdim=True)
        add(out[..., : p.shape[-1]], p, weight, power)
    return problem.spread(out, L).view(B, H * g, L)


def add(
    out: Float[Tensor, "BH g n"],
    p: Float[Tensor, "BH g r n"],
    weight: Float[Tensor, "BH g r"],
    power: float,
) -> None:
    """Add the statistics of one block to `out`; `p` is overwritten."""
    if power == math.inf:
        torch.maximum(out, p.mul_(weight[..., None]).amax(-2), out=out)
        return
    p = p.square_() if power == 2 else p
    out += torch.bmm(weight.flatten(0, 1)[:, None], p.flatten(0, 1))[:, 0].view_as(out)


def row_blocks(
    queries: Float[Tensor, "B Hq R D"],
    keys: Float[Tensor, "B H L D"],
    *,
    scaling: float,
    rows: Int[Tensor, "B R"],
    columns: Bool[Tensor, "B L"] | Bool[Tensor, "B Hq L"] | None = None,
    positions: Int[Tensor, "B L"] | Int[Tensor, "B H L"] | None = None,
) -> Iterator[tuple[slice, Float[Tensor, "B Hq r L"]]]:
    """Yield the softmax that `column_stats` sums: which rows, and their probabilities in float32.

    Every row is in exactly one block, in order. Probabilities are zero where a key is not seen, and
    all zero where there is no row (-1).
    """
    B, Hq = queries.shape[:2]
    L = keys.shape[2]
    used = (rows >= 0)[:, None, None]
    problem = Problem.of(queries, keys, scaling, rows, used, columns, positions, None)
    for part, p in walk.blocks(problem):
        count = p.shape[1] * keys.shape[1] // Hq
        yield part, problem.spread(p, L).view(B, Hq, count, L)


def pieces(
    queries: Float[Tensor, "B Hq R D"], keys: Float[Tensor, "B H L D"]
) -> list[tuple[slice, slice]]:
    """Return which batch rows and key heads to take together, so that products are not slivers."""
    (B, Hq, R), (H, L) = queries.shape[:3], keys.shape[1:3]
    if keys.device.type != "cpu" or B * Hq * R * L <= walk.BLOCK_ELEMENTS:
        return [(slice(0, B), slice(0, H))]
    most = max(1, walk.BLOCK_ELEMENTS // (min(LEAST_ROWS, R * Hq // H) * L))
    size = -(-H // -(-H // most))
    return [
        (slice(b, b + 1), slice(h, min(h + size, H))) for b in range(B) for h in range(0, H, size)
    ]


def cut(table: Table, piece: tuple[slice, slice], H: int) -> Table:
    """Return the part of a table of [B, heads, ...] or [B, n] that a piece needs."""
    if table is None or table.ndim == 2:
        return table if table is None else table[piece[0]]
    per = table.shape[1] // H
    return table[piece[0], piece[1].start * per : piece[1].stop * per]


def row_weights(
    weights: Float[Tensor, "B R"] | Float[Tensor, "B X R"] | None, rows: Int[Tensor, "B R"], X: int
) -> Float[Tensor, "B X R"]:
    """Return the weight of every row in every one of X heads, zero where there is no row."""
    if weights is None:
        weights = torch.ones(rows.shape, device=rows.device)
    if weights.ndim == 2:
        weights = weights[:, None]
    weights = weights.float().masked_fill(rows[:, None] < 0, 0)
    return weights.expand(rows.shape[0], X, rows.shape[1])


def used_rows(
    queries: Float[Tensor, "B Hq R D"],
    rows: Int[Tensor, "B R"],
    weights: Float[Tensor, "B X R"],
    lse: Float[Tensor, "B Hq R"] | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Return everything for the rows that have a weight in some head, in their order."""
    if rows.shape[1] < 2:  # a decode step: nothing to leave out that is worth waiting for
        return queries, rows, weights, lse
    used = (weights != 0).any(1)  # [B, R]
    count = int(used.sum(-1).max()) if used.numel() else 0
    if count == rows.shape[1]:
        return queries, rows, weights, lse
    index = used.int().argsort(dim=-1, descending=True, stable=True)[:, :count]
    wide = index[:, None].expand(-1, queries.shape[1], -1)
    queries = queries.gather(2, wide[..., None].expand(*wide.shape, queries.shape[-1]))
    lse = None if lse is None else lse.gather(2, wide)
    weights = weights.gather(2, index[:, None].expand(-1, weights.shape[1], -1))
    return queries, rows.gather(1, index), weights, lse

"""`column_stats` in Triton: the norms of all rows first, then the sums of every block of keys."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import triton
from torch import Tensor

from foveate.errors import InputError
from foveate.kernels.column_stats.blocked import Table, row_weights
from foveate.kernels.column_stats.passes import add_columns, norm_rows
from foveate.kernels.products import multiprocessors, precision
from foveate.types import Bool, Float, Int

__all__ = ["column_stats"]

TILE_BYTES = 1 << 14  # queries that one program reads at once, and keys
MOST_ROWS = 64  # of such a tile
PROGRAMS = 2  # to start per multiprocessor, where there are that many keys


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
    """Return `sum_i weights[i] * p[i, j] ** power` for every key j, in float32."""
    if power not in (1, 2, math.inf):
        raise InputError(f"power={power!r} is not known; give 1, 2 or math.inf (the maximum)")
    (B, Hq, R, _), (H, L) = queries.shape, keys.shape[1:3]
    X = H if group else Hq
    out = torch.zeros(B, X, L, device=keys.device)
    if out.numel() == 0 or R == 0:
        return out
    weights = row_weights(weights, rows, X)
    queries, keys, rows = lined(queries.detach()), lined(keys.detach()), lined(rows)
    tables = (queries, keys, rows, lined(columns), lined(positions), lined(weights))
    steps = (
        *queries.stride()[:3], *keys.stride()[:3], rows.stride(0),
        *(step for table in tables[3:] for step in head_steps(table)),
    )  # fmt: skip
    shared = tiles(keys)
    if lse is None:
        lse = row_norms(tables, steps, scaling, Hq // X, shared)
    add_columns[(triton.cdiv(L, shared["BLOCK_L"]), B * X)](
        *tables, lse.detach().float().contiguous(), out, R, L, H, Hq // H, *steps, scaling,
        GROUP=Hq // X, POWER=0 if power == math.inf else int(power), **shared,
    )  # fmt: skip
    return out


def row_norms(
    tables: Sequence[Tensor | None],
    steps: Sequence[int],
    scaling: float,
    share: int,
    shared: Mapping[str, Any],
) -> Float[Tensor, "B Hq R"]:
    """Return the log-sum-exp of every row that has a weight, one per `share` query heads."""
    queries, keys = tables[:2]
    assert queries is not None and keys is not None
    (B, Hq, R, _), (H, L), block = queries.shape, keys.shape[1:3], shared["BLOCK_R"]
    parts = key_parts(triton.cdiv(R, block) * B * Hq, triton.cdiv(L, block), keys.device)
    chunk = triton.cdiv(triton.cdiv(L, parts), block) * block
    norms = torch.empty(parts, B, Hq, R, device=keys.device)
    norm_rows[(triton.cdiv(R, block), B * Hq, parts)](
        *tables, norms, R, L, chunk, H, Hq // H, share, *steps, scaling, **shared
    )
    return norms[0] if parts == 1 else norms.logsumexp(0)


def tiles(keys: Float[Tensor, "B H L D"]) -> dict[str, Any]:
    """Return how much of the queries and keys a program reads at once, and how it multiplies."""
    D = keys.shape[3]
    width = max(16, triton.next_power_of_2(D))
    block = max(16, min(MOST_ROWS, TILE_BYTES // (width * keys.element_size())))
    sizes = {"D": D, "BLOCK_D": width, "BLOCK_R": block, "BLOCK_L": block}
    return {**sizes, "enable_fp_fusion": True, **precision(keys.dtype)}


def key_parts(programs: int, blocks: int, device: torch.device) -> int:
    """Return into how many parts to cut the keys, so that few rows keep the device busy, too."""
    return max(1, min(PROGRAMS * multiprocessors(device) // programs, blocks))


def lined(table: Table) -> Table:
    """Return a table with a contiguous last axis, truth as bytes."""
    if table is None:
        return table
    table = table.view(torch.uint8) if table.dtype == torch.bool else table
    return table if table.stride(-1) == 1 else table.contiguous()


def head_steps(table: Tensor | None) -> tuple[int, int]:
    """Return the strides of rows and heads of a table, zero for heads that share theirs."""
    if table is None or table.ndim == 2:
        return (0, 0) if table is None else (table.stride(0), 0)
    return table.stride(0), table.stride(1)

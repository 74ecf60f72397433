"""`column_stats` in blocks of query rows: one block of probabilities is in memory at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from foveate.errors import InputError
from foveate.types import Bool, Float, Int

__all__ = ["column_stats", "row_blocks"]

BLOCK_ELEMENTS = 1 << 21  # probabilities held at once: 8 MiB, about what processors cache
DEVICE_BLOCK_ELEMENTS = 1 << 25  # the same on an accelerator, which wants few, large steps
TILE_ELEMENTS = 1 << 22  # keys cast to float32 at once


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
    `weights[i] * p[i, j]`. With `group` the probabilities are averaged over the query heads that
    share a key head before anything else, and X is H instead of Hq. Rows without weight, and keys
    outside the columns, are never looked at,
    whatever they hold.
    """
    if power not in (1, 2, math.inf):
        raise InputError(f"power={power!r} is not known; give 1, 2 or math.inf (the maximum)")
    B, Hq = queries.shape[:2]
    H, L = keys.shape[1:3]
    X = H if group else Hq
    weights = row_weights(weights, rows, X)
    queries, rows, weights, lse = used_rows(queries, rows, weights, lse)
    out = torch.zeros(B, H, X // H, L, device=keys.device, dtype=torch.float32)
    held = BLOCK_ELEMENTS if keys.device.type == "cpu" else DEVICE_BLOCK_ELEMENTS
    step = max(1, held // max(1, B * Hq * L))
    for start in range(0, rows.shape[1], step):
        part = slice(start, start + step)
        seen = visible(rows[:, part], columns, positions, H, L)
        norm = None if lse is None else lse[..., part].unflatten(1, (H, -1))
        p = probabilities(queries[:, :, part].unflatten(1, (H, -1)), keys, seen, scaling, norm)
        p = p.mean(2, keepdim=True) if group else p
        weight = weights[..., part].unflatten(1, (H, -1))[..., None]
        # A row without weight may hold anything: it is replaced, not multiplied by zero.
        p = torch.where(weight == 0, 0, p.square() if power == 2 else p) * weight
        out = torch.maximum(out, p.amax(-2)) if power == math.inf else out + p.sum(-2)
    return out.flatten(1, 2)


def row_blocks(
    queries: Float[Tensor, "B Hq R D"],
    keys: Float[Tensor, "B H L D"],
    *,
    scaling: float,
    rows: Int[Tensor, "B R"],
    columns: Bool[Tensor, "B L"] | Bool[Tensor, "B Hq L"] | None = None,
    positions: Int[Tensor, "B L"] | Int[Tensor, "B H L"] | None = None,
) -> Iterator[tuple[slice, Float[Tensor, "B Hq r L"]]]:
    """Yield blocks of rows and their probabilities over the keys they see, zero elsewhere.

    The arguments are those of `column_stats`; missing rows have zeros.
    """
    B, Hq = queries.shape[:2]
    H, L = keys.shape[1:3]
    held = BLOCK_ELEMENTS if keys.device.type == "cpu" else DEVICE_BLOCK_ELEMENTS
    step = max(1, held // max(1, B * Hq * L))
    for start in range(0, rows.shape[1], step):
        part = slice(start, min(start + step, rows.shape[1]))
        seen = visible(rows[:, part], columns, positions, H, L)
        p = probabilities(queries[:, :, part].unflatten(1, (H, -1)), keys, seen, scaling, None)
        missing = rows[:, None, None, part, None] < 0
        yield part, p.masked_fill(missing, 0).flatten(1, 2)


def probabilities(
    queries: Float[Tensor, "B H G r D"],
    keys: Float[Tensor, "B H L D"],
    seen: Bool[Tensor, "B h g r L"],
    scaling: float,
    norm: Float[Tensor, "B H G r"] | None,
) -> Float[Tensor, "B H G r L"]:
    """Return the softmax over the seen keys, or `exp(logit - norm)` there; zero elsewhere."""
    logits = products(queries.float() * scaling, keys).masked_fill_(~seen, -torch.inf)
    # A row that sees nothing has -inf everywhere, and -inf - (-inf) is not a number.
    if norm is None:
        return logits.softmax(-1).masked_fill_(~seen.any(-1, keepdim=True), 0)
    norm = norm.float()
    return logits.sub_(norm.masked_fill(norm == -torch.inf, 0)[..., None]).exp_()


def row_weights(
    weights: Float[Tensor, "B R"] | Float[Tensor, "B X R"] | None,
    rows: Int[Tensor, "B R"],
    heads: int,
) -> Float[Tensor, "B X R"]:
    """Return the weight of every row in every head, zero where there is no row."""
    if weights is None:
        weights = torch.ones(rows.shape, device=rows.device)
    if weights.ndim == 2:
        weights = weights[:, None]
    weights = weights.float().masked_fill(rows[:, None] < 0, 0)
    return weights.expand(rows.shape[0], heads, rows.shape[1])


def used_rows(
    queries: Float[Tensor, "B Hq R D"],
    rows: Int[Tensor, "B R"],
    weights: Float[Tensor, "B X R"],
    lse: Float[Tensor, "B Hq R"] | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Return everything for the rows that have a weight in some head, in their order."""
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


def visible(
    rows: Int[Tensor, "B r"],
    columns: Bool[Tensor, "B L"] | Bool[Tensor, "B Hq L"] | None,
    positions: Int[Tensor, "B L"] | Int[Tensor, "B H L"] | None,
    H: int,
    L: int,
) -> Bool[Tensor, "B h g r L"]:
    """Return which keys each row sees; axes on which all agree have length one."""
    if positions is None:
        positions = torch.arange(L, device=rows.device).expand(rows.shape[0], L)
    if positions.ndim == 2:
        positions = positions[:, None]
    positions = positions[:, :, None, None]
    seen = (positions >= 0) & (positions <= rows[:, None, None, :, None])
    if columns is None:
        return seen
    if columns.ndim == 2:
        return seen & columns[:, None, None, None]
    return seen & columns.unflatten(1, (H, -1))[..., None, :]


def products(
    queries: Float[Tensor, "B H G r D"], keys: Float[Tensor, "B H L D"]
) -> Float[Tensor, "B H G r L"]:
    """Return all inner products in float32, casting a tile of keys at a time."""
    B, H, G, r, D = queries.shape
    flat = queries.reshape(B, H, G * r, D)
    step = (
        keys.shape[2] if keys.dtype == torch.float32 else max(1, TILE_ELEMENTS // max(1, B * H * D))
    )
    tiles = [flat @ tile.float().transpose(-1, -2) for tile in keys.split(max(1, step), 2)]
    return (torch.cat(tiles, -1) if len(tiles) > 1 else tiles[0]).unflatten(2, (G, r))

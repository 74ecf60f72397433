"""The kernels of `column_stats` in Triton: norms of query rows, and statistics of keys."""

import triton
import triton.language as tl

from foveate.kernels.products import product

__all__ = ["add_columns", "norm_rows"]

ROWS_AT_ONCE = tl.constexpr(1024)  # that are looked at to find the first which matters


@triton.jit(do_not_specialize=["R", "L", "chunk"])
def norm_rows(
    queries, keys, rows, columns, positions, weights, norms, R, L, chunk, heads, group, share,
    query_b, query_h, query_r, key_b, key_h, key_l, row_b,
    column_b, column_h, position_b, position_h, weight_b, weight_h, scaling,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_L: tl.constexpr,
    PRECISION: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Store the log-sum-exp of one block of rows over one part of the keys; minus infinity: none.

    Rows that have no weight in the statistics, `share` query heads to each, are not looked at.
    """
    r = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    b = (tl.program_id(1) // (heads * group)).to(tl.int64)
    hq = (tl.program_id(1) % (heads * group)).to(tl.int64)
    h, part = hq // group, tl.program_id(2)
    row, weight = row_table(rows + b * row_b, weights + b * weight_b + hq // share * weight_h, r, R)
    q = query_rows(queries + b * query_b + hq * query_h, query_r, r, weight != 0, D, BLOCK_D)
    keys += b * key_b + h * key_h
    top = tl.full([BLOCK_R], float("-inf"), tl.float32)
    norm = tl.zeros([BLOCK_R], tl.float32)
    stop = tl.minimum(L, (part + 1) * chunk)
    if positions is None:
        stop = tl.minimum(stop, tl.max(tl.where(weight != 0, row, -1), 0) + 1)
    else:
        positions += b * position_b + h * position_h
    if columns is not None:
        columns += b * column_b + hq * column_h
    for first in tl.range(part * chunk, stop, BLOCK_L, num_stages=2):
        n = first + tl.arange(0, BLOCK_L)
        k, place = key_columns(keys, key_l, positions, n, stop, D, BLOCK_D)
        logits = product(q, k, tl.zeros([BLOCK_R, BLOCK_L], tl.float32), PRECISION, WIDE) * scaling
        logits = where_seen(logits, row, weight, place, columns, n, stop)
        higher = tl.maximum(top, tl.max(logits, 1))
        finite = tl.where(higher == float("-inf"), 0.0, higher)
        norm = norm * tl.exp(top - finite) + tl.sum(tl.exp(logits - finite[:, None]), 1)
        top = higher
    lse = tl.where(norm > 0, top + tl.log(tl.where(norm > 0, norm, 1.0)), float("-inf"))
    place = (part * tl.num_programs(1) + tl.program_id(1)).to(tl.int64) * R + r
    tl.store(norms + place, lse, mask=r < R)


@triton.jit(do_not_specialize=["R", "L"])
def add_columns(
    queries, keys, rows, columns, positions, weights, norms, out, R, L, heads, group,
    query_b, query_h, query_r, key_b, key_h, key_l, row_b,
    column_b, column_h, position_b, position_h, weight_b, weight_h, scaling,
    GROUP: tl.constexpr, POWER: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_L: tl.constexpr, PRECISION: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Store the statistics of one block of keys over all rows; `POWER` 0 is for the maximum.

    Probabilities are averaged over `GROUP` query heads first.
    """
    n = tl.program_id(0) * BLOCK_L + tl.arange(0, BLOCK_L)
    count = heads * group // GROUP  # of statistics in each row of the batch
    b = (tl.program_id(1) // count).to(tl.int64)
    x = (tl.program_id(1) % count).to(tl.int64)
    h = x * GROUP // group
    rows, weights = rows + b * row_b, weights + b * weight_b + x * weight_h
    queries, columns_b = queries + b * query_b, b * column_b
    if positions is not None:
        positions += b * position_b + h * position_h
    k, place = key_columns(keys + b * key_b + h * key_h, key_l, positions, n, L, D, BLOCK_D)
    total = tl.zeros([BLOCK_L], tl.float32)
    start = first_row(rows, tl.min(tl.where(place >= 0, place, 1 << 30), 0), R)
    for first in tl.range(start // BLOCK_R * BLOCK_R, R, BLOCK_R, num_stages=2):
        r = first + tl.arange(0, BLOCK_R)
        row, weight = row_table(rows, weights, r, R)
        p = tl.zeros([BLOCK_R, BLOCK_L], tl.float32)
        for g in range(GROUP):
            hq = x * GROUP + g
            q = query_rows(queries + hq * query_h, query_r, r, weight != 0, D, BLOCK_D)
            logits = product(q, k, tl.zeros([BLOCK_R, BLOCK_L], tl.float32), PRECISION, WIDE)
            seen = None if columns is None else columns + columns_b + hq * column_h
            logits = where_seen(logits * scaling, row, weight, place, seen, n, L)
            at = (b * heads * group + hq) * R + r
            norm = tl.load(norms + at, mask=weight != 0, other=0)
            p += tl.exp(logits - tl.where(norm == float("-inf"), 0.0, norm)[:, None])
        p = p / GROUP
        if POWER == 0:
            total = tl.maximum(total, tl.max(p * weight[:, None], 0))
        else:
            total += tl.sum((p if POWER == 1 else p * p) * weight[:, None], 0)
    tl.store(out + tl.program_id(1).to(tl.int64) * L + n, total, mask=n < L)


@triton.jit
def first_row(rows, place, R):
    """Return the number of the first row that can see a key at `place`, R if there is none."""
    found = R
    for first in range(0, R, ROWS_AT_ONCE):
        r = first + tl.arange(0, ROWS_AT_ONCE)
        row = tl.load(rows + r, mask=r < R, other=-1)
        found = tl.minimum(found, tl.min(tl.where(row >= place, r, R), 0))
    return found


@triton.jit
def row_table(rows, weights, r, R):
    """Return the logical positions of some rows, and their weights."""
    row = tl.load(rows + r, mask=r < R, other=-1).to(tl.int32)
    return row, tl.load(weights + r, mask=r < R, other=0)


@triton.jit
def query_rows(queries, query_r, r, used, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """Return the queries of the rows that are used, zeros in the place of others."""
    d = tl.arange(0, BLOCK_D)
    place = queries + r.to(tl.int64)[:, None] * query_r + d
    return tl.load(place, mask=used[:, None] & (d < D), other=0)


@triton.jit
def key_columns(keys, key_l, positions, n, stop, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """Return some keys as columns, and where they lie: -1 for empty slots and behind the last."""
    d = tl.arange(0, BLOCK_D)[:, None]
    k = tl.load(keys + n.to(tl.int64) * key_l + d, mask=(n < stop) & (d < D), other=0)
    if positions is None:
        place = tl.where(n < stop, n, -1)
    else:
        place = tl.load(positions + n, mask=n < stop, other=-1).to(tl.int32)
    return k, place


@triton.jit
def where_seen(logits, row, weight, place, columns, n, stop):
    """Return the logits, minus infinity where a row is not used or does not see the key."""
    seen = (weight != 0)[:, None] & (place >= 0) & (place <= row[:, None])
    if columns is not None:
        seen = seen & (tl.load(columns + n, mask=n < stop, other=0) != 0)
    return tl.where(seen, logits, float("-inf"))

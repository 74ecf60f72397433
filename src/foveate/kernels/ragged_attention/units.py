"""The kernels of `ragged_attention` in Triton: attention to one unit, and units put together."""

import triton
import triton.language as tl

from foveate.kernels.products import product

__all__ = ["attend_units", "merge_units"]


@triton.jit(do_not_specialize=["t", "chunk", "tails", "prefix_i", "tail_b", "tail_x", "tail_i"])
def attend_units(
    queries, keys, values, offsets, tail_keys, tail_values, prefix_bias, tail_bias,
    sums, tops, norms, t, query_b, query_h, query_i, key_n, value_n,
    key_b, key_h, key_t, value_b, value_h, value_t,
    prefix_i, prefix_n, tail_b, tail_x, tail_i, tail_t,
    scaling, softcap, prefix_least, tail_least, heads, segments, group, rows, chunk, tails,
    D: tl.constexpr, DV: tl.constexpr, SEGMENTS: tl.constexpr, BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr, PRECISION: tl.constexpr,
    WIDE: tl.constexpr,
):  # fmt: skip
    """Attend to one unit of one segment's prefix or tail: weighted sums, maximum and norm."""
    unit = tl.program_id(0)
    m = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    d, dv = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_DV)
    in_tail = unit < segments * tails
    segment, start, stop = locate(unit, offsets, t, segments, chunk, tails, SEGMENTS)
    if segment >= segments:
        return  # there are fewer units than there could have been
    b, h = (segment // heads).to(tl.int64), (segment % heads).to(tl.int64)
    hq, i = h * group + m // rows, m % rows
    there = m < group * rows
    place = queries + b * query_b + hq[:, None] * query_h + i[:, None] * query_i
    q = tl.load(place + d, mask=there[:, None] & (d < D), other=0)
    if in_tail:
        top, norm, total = attend(
            q, tail_keys + b * key_b + h * key_h, key_t,
            tail_values + b * value_b + h * value_h, value_t,
            tail_bias, b * tail_b + hq * tail_x + i * tail_i, tail_t, tail_least, there,
            start, stop, scaling, softcap, D, DV, BLOCK_M, BLOCK_N, BLOCK_D, BLOCK_DV,
            PRECISION, WIDE,
        )  # fmt: skip
    else:
        top, norm, total = attend(
            q, keys, key_n, values, value_n,
            prefix_bias, i.to(tl.int64) * prefix_i, prefix_n, prefix_least, there,
            start, stop, scaling, softcap, D, DV, BLOCK_M, BLOCK_N, BLOCK_D, BLOCK_DV,
            PRECISION, WIDE,
        )  # fmt: skip
    place = unit.to(tl.int64) * group * rows + m
    tl.store(tops + place, top, mask=there)
    tl.store(norms + place, norm, mask=there)
    tl.store(sums + place[:, None] * DV + dv, total, mask=there[:, None] & (dv < DV))


@triton.jit
def locate(unit, offsets, t, segments, chunk, tails, SEGMENTS: tl.constexpr):
    """Return the segment of a unit, and its first token and the token behind its last.

    Units of tails come first, those of prefixes next, in the order of the segments. Without such a
    unit the segment is one that does not exist.
    """
    if unit < segments * tails:
        segment = unit // tails
        start = (unit % tails).to(tl.int64) * chunk
        stop = tl.minimum(start + chunk, t)
    else:
        index = unit - segments * tails
        ends = tl.cumsum(prefix_units(offsets, segments, chunk, SEGMENTS), 0)
        segment = tl.sum((ends <= index).to(tl.int32), 0)
        before = tl.max(tl.where(ends <= index, ends, 0), 0)
        exists = segment < segments
        start = tl.load(offsets + segment, mask=exists, other=0) + (index - before) * chunk
        stop = tl.minimum(start + chunk, tl.load(offsets + segment + 1, mask=exists, other=0))
    return segment, start, stop


@triton.jit
def prefix_units(offsets, segments, chunk, SEGMENTS: tl.constexpr):
    """Return how many units the prefix of each segment has."""
    ids = tl.arange(0, SEGMENTS)
    starts = tl.load(offsets + ids, mask=ids < segments, other=0)
    stops = tl.load(offsets + ids + 1, mask=ids < segments, other=0)
    return ((stops - starts + chunk - 1) // chunk).to(tl.int32) * (ids < segments).to(tl.int32)


@triton.jit
def attend(
    q, keys, key_n, values, value_n, bias, bias_rows, bias_n, bias_least, there, start, stop,
    scaling, softcap,
    D: tl.constexpr, DV: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr, PRECISION: tl.constexpr,
    WIDE: tl.constexpr,
):  # fmt: skip
    """Return the maximum, the norm and the weighted sums of some query rows over tokens."""
    d, dv = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_DV)
    top = tl.full([BLOCK_M], float("-inf"), tl.float32)
    norm = tl.zeros([BLOCK_M], tl.float32)
    total = tl.zeros([BLOCK_M, BLOCK_DV], tl.float32)
    for first in tl.range(start, stop, BLOCK_N, num_stages=3):
        n = first + tl.arange(0, BLOCK_N)
        some = n < stop
        seen = some & there[:, None]
        if bias is not None:
            place = bias + bias_rows[:, None] + n * bias_n
            added = tl.load(place, mask=seen, other=0).to(tl.float32)
            seen = seen & (added > bias_least)
            some = tl.max(seen.to(tl.int32), 0) > 0
        k = tl.load(keys + n * key_n + d[:, None], mask=some & (d < D)[:, None], other=0)
        v = tl.load(values + n[:, None] * value_n + dv, mask=some[:, None] & (dv < DV), other=0)
        logits = product(q, k, tl.zeros([BLOCK_M, BLOCK_N], tl.float32), PRECISION, WIDE) * scaling
        if softcap is not None:
            small = tl.exp(-2 * tl.abs(logits / softcap))
            logits = tl.where(logits < 0, -softcap, softcap) * ((1 - small) / (1 + small))
        if bias is not None:
            logits += added
        logits = tl.where(seen, logits, float("-inf"))
        higher = tl.maximum(top, tl.max(logits, 1))
        finite = tl.where(higher == float("-inf"), 0.0, higher)
        p = tl.exp(logits - finite[:, None])
        shrink = tl.exp(top - finite)
        norm = norm * shrink + tl.sum(p, 1)
        total = product(p.to(v.dtype), v, total * shrink[:, None], PRECISION, WIDE)
        top = higher
    return top, norm, total


@triton.jit(do_not_specialize=["chunk", "tails"])
def merge_units(
    offsets, sums, tops, norms, sinks, out, heads, segments, group, rows, chunk, tails,
    DV: tl.constexpr, BLOCK_DV: tl.constexpr, SEGMENTS: tl.constexpr, MERGED: tl.constexpr,
):  # fmt: skip
    """Put the units of one segment together, for one query row."""
    dv, M = tl.arange(0, BLOCK_DV), group * rows
    segment, m = tl.program_id(0) // M, tl.program_id(0) % M
    b, hq = segment // heads, segment % heads * group + m // rows
    units = prefix_units(offsets, segments, chunk, SEGMENTS)
    ids = tl.arange(0, SEGMENTS)
    count = tails + tl.sum(tl.where(ids == segment, units, 0), 0)
    jump = segments * tails + tl.sum(tl.where(ids < segment, units, 0), 0) - tails
    top, norm = float("-inf"), 0.0
    total = tl.zeros([BLOCK_DV], tl.float32)
    if sinks is not None:
        top, norm = tl.load(sinks + hq).to(tl.float32), 1.0
    for first in range(0, count, MERGED):
        j = first + tl.arange(0, MERGED)
        unit = tl.where(j < tails, segment * tails, jump) + j
        place = unit.to(tl.int64) * M + m
        highs = tl.load(tops + place, mask=j < count, other=float("-inf"))
        higher = tl.maximum(top, tl.max(highs, 0))
        finite = tl.where(higher == float("-inf"), 0.0, higher)
        shares, shrink = tl.exp(highs - finite), tl.exp(top - finite)
        part = tl.load(
            sums + place[:, None] * DV + dv, mask=(j < count)[:, None] & (dv < DV), other=0
        )
        norm = norm * shrink + tl.sum(shares * tl.load(norms + place, mask=j < count, other=0), 0)
        total = total * shrink + tl.sum(part * shares[:, None], 0)
        top = higher
    total = total / tl.where(norm > 0, norm, 1.0)
    place = ((b * rows + m % rows).to(tl.int64) * heads * group + hq) * DV + dv
    tl.store(out + place, total.to(out.dtype.element_ty), mask=dv < DV)

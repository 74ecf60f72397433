"""`ragged_attention` in Triton: every segment cut into units of equal length, then put together."""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from foveate.kernels.products import multiprocessors, precision
from foveate.kernels.ragged_attention.layout import Layout
from foveate.kernels.ragged_attention.units import attend_units, merge_units
from foveate.types import Float, Int

__all__ = ["ragged_attention"]

LEAST_TOKENS = 128  # of one unit, where that many are left
WAVES = 2  # units to make per multiprocessor
MOST_ROWS = 32  # query rows of one program
TILE_BYTES = 1 << 13  # keys, and as many values, that a program reads at once
MERGED = 16  # units that are merged at once


@torch.no_grad()
def ragged_attention(
    queries: Float[Tensor, "B Hq q D"],
    keys: Float[Tensor, "S D"],
    values: Float[Tensor, "S Dv"],
    offsets: Int[Tensor, " n"],
    tail_keys: Float[Tensor, "B H t D"],
    tail_values: Float[Tensor, "B H t Dv"],
    *,
    scaling: float,
    softcap: float | None = None,
    sinks: Float[Tensor, " Hq"] | None = None,
    prefix_bias: Float[Tensor, "q S"] | None = None,
    tail_bias: Float[Tensor, "B x q t"] | None = None,
    layout: Layout | None = None,
) -> Float[Tensor, "B q Hq Dv"]:
    """Return attention over a flat prefix and a dense tail, in the dtype of the queries.

    The host never learns how long a segment is: it starts as many programs as there can be units,
    and those find out from the offsets what is theirs. `layout` is not needed.
    """
    B, Hq, q, D = queries.shape
    H, t = tail_keys.shape[1:3]
    (S, Dv), M = values.shape, Hq // H * q
    out = queries.new_empty(B, q, Hq, Dv)
    block = min(MOST_ROWS, max(16, triton.next_power_of_2(M)))
    chunk = unit_tokens(S + B * H * t, triton.cdiv(M, block), queries.device)
    tails = triton.cdiv(t, chunk)
    units = B * H * tails + (S + B * H * (chunk - 1)) // chunk  # the prefix has no more than that
    if out.numel() == 0 or S + t == 0:
        return out.zero_()
    queries, keys, values, tail_keys, tail_values = (
        x if x.stride(-1) == 1 else x.contiguous()
        for x in (queries, keys, values, tail_keys, tail_values)
    )
    sums = queries.new_empty(units, M, Dv, dtype=torch.float32)
    tops, norms = queries.new_empty(2, units, M, dtype=torch.float32)
    widths = (max(16, triton.next_power_of_2(D)), max(16, triton.next_power_of_2(Dv)))
    tile = TILE_BYTES // (max(widths) * keys.element_size())
    shared = {
        "heads": H, "segments": B * H, "group": Hq // H, "rows": q, "chunk": chunk, "tails": tails,
        "SEGMENTS": triton.next_power_of_2(B * H), "DV": Dv, "BLOCK_DV": widths[1],
        "enable_fp_fusion": True,
    }  # fmt: skip
    attend_units[(units, triton.cdiv(M, block))](
        queries, keys, values, offsets, tail_keys, tail_values, prefix_bias, tail_bias,
        sums, tops, norms, t, *queries.stride()[:3], keys.stride(0), values.stride(0),
        *tail_keys.stride()[:3], *tail_values.stride()[:3], *bias_steps(prefix_bias, tail_bias),
        scaling, softcap, least(prefix_bias), least(tail_bias),
        D=D, BLOCK_D=widths[0], BLOCK_M=block, BLOCK_N=min(128, max(16, tile)),
        **precision(keys.dtype), **shared,
    )  # fmt: skip
    merge_units[(B * H * M,)](offsets, sums, tops, norms, sinks, out, MERGED=MERGED, **shared)
    return out


def unit_tokens(tokens: int, blocks: int, device: torch.device) -> int:
    """Return how long a unit is to be, so that all multiprocessors have some of all the tokens."""
    wanted = triton.cdiv(tokens * blocks, WAVES * multiprocessors(device))
    return LEAST_TOKENS * max(1, triton.cdiv(wanted, LEAST_TOKENS))


def bias_steps(prefix_bias: Tensor | None, tail_bias: Tensor | None) -> tuple[int, ...]:
    """Return the strides of both biases, zero for an axis that is shared."""
    prefix = (0, 0) if prefix_bias is None else prefix_bias.stride()
    if tail_bias is None:
        return (*prefix, 0, 0, 0, 0)
    sizes, steps = tail_bias.shape, tail_bias.stride()
    return (*prefix, *(0 if size == 1 else step for size, step in zip(sizes, steps, strict=True)))


def least(bias: Tensor | None) -> float:
    """Return the number that hides in a bias: the least of its dtype."""
    return 0.0 if bias is None else max(torch.finfo(bias.dtype).min, torch.finfo(torch.float).min)

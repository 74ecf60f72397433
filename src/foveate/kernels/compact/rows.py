"""The kernel of `compact` in Triton: rows copied from where slots say."""

import triton
import triton.language as tl

__all__ = ["copy_rows"]


@triton.jit(do_not_specialize=["count", "T"])
def copy_rows(
    keys, values, slots, new_keys, new_values, count, H, T,
    key_b, key_h, key_t, key_d, value_b, value_h, value_t, value_d,
    D: tl.constexpr, DV: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Copy the keys and values of one block of slots, zeros where a slot is -1."""
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    slot = tl.load(slots + place, mask=place < count, other=-1).to(tl.int64)
    there = (slot >= 0)[:, None]
    b, h, t = slot // H // T, slot // T % H, slot % T
    d, dv = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_DV)
    inside, inside_dv = (place < count)[:, None] & (d < D), (place < count)[:, None] & (dv < DV)
    start = keys + (b * key_b + h * key_h + t * key_t)[:, None]
    key = tl.load(start + d * key_d, mask=there & inside, other=0)
    start = values + (b * value_b + h * value_h + t * value_t)[:, None]
    value = tl.load(start + dv * value_d, mask=there & inside_dv, other=0)
    tl.store(new_keys + place[:, None] * D + d, key, mask=inside)
    tl.store(new_values + place[:, None] * DV + dv, value, mask=inside_dv)

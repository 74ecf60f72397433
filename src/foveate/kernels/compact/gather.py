"""`compact` in plain torch: rows of the memory that the keys and values lie in."""

from __future__ import annotations

from torch import Tensor

from foveate.types import Float, Int

__all__ = ["compact"]


def compact(
    keys: Float[Tensor, "B H T D"], values: Float[Tensor, "B H T Dv"], slots: Int[Tensor, "*shape"]
) -> tuple[Float[Tensor, "*shape D"], Float[Tensor, "*shape Dv"]]:
    """Return the keys and values of `slots`, in their order; -1 gives zeros.

    Slot `(b * H + h) * T + t` is token t of key head h in row b. Nothing but what is returned is
    copied, also where the keys or values are a part of a longer tensor.
    """
    empty = (slots.flatten() < 0).nonzero()[:, 0]
    slots = slots.clamp(min=0) if len(empty) else slots
    return picked(keys, slots, empty), picked(values, slots, empty)


def picked(
    entries: Float[Tensor, "B H T D"], slots: Int[Tensor, "*shape"], empty: Int[Tensor, " n"]
) -> Float[Tensor, "*shape D"]:
    """Return the entries of `slots`, zeros where the flattened slots are `empty`."""
    _, H, T, D = entries.shape
    if entries.numel() == 0:
        return entries.new_zeros(*slots.shape, D)
    if any(step % D for step in entries.stride()[:3]) or entries.stride(3) != 1:
        out = entries[slots // (H * T), slots // T % H, slots % T]
    else:
        out = memory(entries).index_select(0, memory_rows(entries, slots).flatten())
    if len(empty):
        out.view(-1, D).index_fill_(0, empty, 0)
    return out.view(*slots.shape, D)


def memory(entries: Float[Tensor, "B H T D"]) -> Float[Tensor, "n D"]:
    """Return the memory from the first entry to the last, in rows; nothing is copied."""
    D = entries.shape[3]
    steps = zip(entries.shape[:3], entries.stride()[:3], strict=True)
    rows = sum((size - 1) * step for size, step in steps) // D + 1
    return entries.as_strided((rows, D), (D, 1))


def memory_rows(
    entries: Float[Tensor, "B H T D"], slots: Int[Tensor, "*shape"]
) -> Int[Tensor, "*shape"]:
    """Return in which rows of the memory `slots` are."""
    _, H, T, D = entries.shape
    of_row, of_head, of_token = (step // D for step in entries.stride()[:3])
    if of_token == 1 and of_row == H * of_head:
        return slots if of_head == T else slots + slots // T * (of_head - T)
    return slots // (H * T) * of_row + slots // T % H * of_head + slots % T * of_token

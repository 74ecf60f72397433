"""`allocate` in exact fractions: fix what hits a wall, share the rest, again."""

from __future__ import annotations

from fractions import Fraction

import torch
from torch import Tensor

from foveate.errors import InputError
from foveate.types import Float, Int

__all__ = ["allocate"]

GRAIN = 2**30  # fractional parts that differ by less than 1 / GRAIN count as equal


def allocate(
    weights: Float[Tensor, "*batch n"],
    total: Int[Tensor, "*batch"],
    cap: Int[Tensor, "*batch n"],
    floor: Int[Tensor, "*batch n"],
) -> Int[Tensor, "*batch n"]:
    """Return whole numbers near `clip(level * weights, floor, cap)` with the sum `total`."""
    if not bool((weights.isfinite() & (weights >= 0)).all()):
        raise InputError(
            f"weights {weights.tolist()} cannot be shared by; give finite numbers >= 0"
        )
    n = weights.shape[-1]
    out = [
        one_row([Fraction(w) for w in row_weights], int(row_total), row_cap, row_floor)
        for row_weights, row_total, row_cap, row_floor in zip(
            weights.double().reshape(-1, n).tolist(),
            total.reshape(-1).tolist(),
            cap.reshape(-1, n).tolist(),
            floor.reshape(-1, n).tolist(),
            strict=True,
        )
    ]
    return torch.tensor(out, dtype=torch.long).reshape(weights.shape)


def one_row(weights: list[Fraction], total: int, cap: list[int], floor: list[int]) -> list[int]:
    """Return the whole numbers for one list of weights."""
    cap = [max(c, 0) for c in cap]
    floor = [min(max(f, 0), c) for f, c in zip(floor, cap, strict=True)]
    total = min(max(total, sum(floor)), sum(cap))
    weighted = {i for i, w in enumerate(weights) if w > 0}
    if total <= sum(cap[i] if i in weighted else floor[i] for i in range(len(cap))):
        fixed = {i: Fraction(floor[i]) for i in range(len(cap)) if i not in weighted}
    else:
        fixed = {i: Fraction(cap[i]) for i in weighted}
        weights = [Fraction(1)] * len(cap)
    shares = filled(weights, total, cap, floor, fixed)
    units = [round(share * GRAIN) for share in shares]
    counts = [unit // GRAIN for unit in units]
    room = [i for i in range(len(cap)) if counts[i] < cap[i]]
    room.sort(key=lambda i: (-(units[i] % GRAIN), i))
    for i in room[: total - sum(counts)]:
        counts[i] += 1
    return counts


def filled(
    weights: list[Fraction],
    total: int,
    cap: list[int],
    floor: list[int],
    fixed: dict[int, Fraction],
) -> list[Fraction]:
    """Return the real shares: those in `fixed`, and the others at one level between their walls."""
    fixed = dict(fixed)
    while free := [i for i in range(len(cap)) if i not in fixed]:
        level = (total - sum(fixed.values())) / sum((weights[i] for i in free), Fraction(0))
        clipped = {
            i: min(max(level * weights[i], Fraction(floor[i])), Fraction(cap[i])) for i in free
        }
        surplus = sum(clipped.values()) - sum(level * weights[i] for i in free)
        if surplus == 0 and all(clipped[i] == level * weights[i] for i in free):
            fixed |= clipped
            continue
        # More than there is: the level sinks, and what is on the floor stays there. Less: it rises.
        wall = floor if surplus > 0 else cap
        stuck = {i for i in free if clipped[i] == wall[i] and clipped[i] != level * weights[i]}
        if surplus == 0:
            stuck = {i for i in free if clipped[i] != level * weights[i]}
        fixed |= {i: clipped[i] for i in stuck}
    return [fixed[i] for i in range(len(cap))]

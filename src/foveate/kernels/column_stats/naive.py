"""`column_stats` as one writes it down: a loop per axis, in double precision."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from foveate.errors import InputError
from foveate.types import Bool, Float, Int

__all__ = ["column_stats"]


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
    B, Hq, R, _ = queries.shape
    H, L = keys.shape[1:3]
    G = Hq // H
    heads = [range(h * G, h * G + G) for h in range(H)] if group else [[hq] for hq in range(Hq)]
    out = torch.zeros(B, len(heads), L, dtype=torch.float64)
    for b in range(B):
        for x, together in enumerate(heads):
            for i in range(R):
                weight = 1.0 if weights is None else float(pick(weights, b, x)[i])
                if rows[b, i] < 0 or weight == 0:
                    continue
                mean = [0.0] * L
                for hq in together:
                    h = hq // G
                    place = range(L) if positions is None else pick(positions, b, h).tolist()
                    seen = [True] * L if columns is None else pick(columns, b, hq).tolist()
                    logits = {
                        j: float(queries[b, hq, i].double() @ keys[b, h, j].double()) * scaling
                        for j in range(L)
                        if seen[j] and 0 <= place[j] <= rows[b, i]
                    }
                    norm = None if lse is None else float(lse[b, hq, i])
                    for j, p in softmax(logits, norm).items():
                        mean[j] += p / len(together)
                for j, p in enumerate(mean):
                    if power == math.inf:
                        out[b, x, j] = max(float(out[b, x, j]), weight * p)
                    else:
                        out[b, x, j] += weight * p**power
    return out.float().to(keys.device)


def softmax(logits: dict[int, float], norm: float | None) -> dict[int, float]:
    """Return the softmax of some logits, or `exp(logit - norm)`."""
    if not logits:
        return {}
    if norm is None:
        top = max(logits.values())
        norm = top + math.log(sum(math.exp(logit - top) for logit in logits.values()))
    return {j: math.exp(logit - norm) for j, logit in logits.items()}


def pick(table: Tensor, b: int, head: int) -> Tensor:
    """Return what a table says about one row and head; without heads, all heads share it."""
    return table[b] if table.ndim == 2 else table[b, head]

"""`ragged_attention` as one writes it down: a loop per row, head and query, in double precision."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from foveate.kernels.ragged_attention.layout import Layout
from foveate.types import Float, Int

__all__ = ["ragged_attention"]


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
    """Return attention over a flat prefix and a dense tail, in the dtype of the queries."""
    B, Hq, R, _ = queries.shape
    H, t = tail_keys.shape[1:3]
    out = torch.zeros(B, R, Hq, values.shape[-1], dtype=torch.float64)
    for b in range(B):
        for hq in range(Hq):
            h = hq // (Hq // H)
            start, stop = int(offsets[b * H + h]), int(offsets[b * H + h + 1])
            sink = None if sinks is None else float(sinks[hq])
            seen_keys = [*keys[start:stop], *tail_keys[b, h]]
            seen_values = [*values[start:stop], *tail_values[b, h]]
            for i in range(R):
                bias = [0.0] * (stop - start + t)
                if prefix_bias is not None:
                    bias[: stop - start] = finite(prefix_bias[i, start:stop])
                if tail_bias is not None:
                    row = tail_bias[b, hq if tail_bias.shape[1] > 1 else 0, i]
                    bias[stop - start :] = finite(row)
                logits = []
                for key, added in zip(seen_keys, bias, strict=True):
                    logit = float(queries[b, hq, i].double() @ key.double()) * scaling
                    if softcap is not None:
                        logit = softcap * math.tanh(logit / softcap)
                    logits.append(logit + added)
                for p, value in zip(softmax(logits, sink), seen_values, strict=True):
                    if p > 0:
                        out[b, i, hq] += p * value.double().cpu()
    return out.to(queries)


def finite(bias: Float[Tensor, " n"]) -> list[float]:
    """Return a bias, the least number of its dtype as minus infinity."""
    least = torch.finfo(bias.dtype).min
    return [-math.inf if added <= least else added for added in bias.tolist()]


def softmax(logits: list[float], sink: float | None) -> list[float]:
    """Return the softmax of some logits beside a sink; zeros, where nothing is seen."""
    top = max([*logits, -math.inf if sink is None else sink], default=-math.inf)
    if top == -math.inf:
        return [0.0] * len(logits)
    weights = [math.exp(logit - top) for logit in logits]
    total = sum(weights) + (0.0 if sink is None else math.exp(sink - top))
    return [weight / total for weight in weights]

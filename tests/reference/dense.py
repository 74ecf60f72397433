"""Attention written out in full: every row, every column."""

import numpy as np


def attention(Q, K, scaling):
    """Causal softmax attention [Hq, T, T] of queries [Hq, T, D] and keys [H, T, D]."""
    heads, T = Q.shape[:2]
    groups = heads // K.shape[0]
    out = np.zeros((heads, T, T))
    for h in range(heads):
        for i in range(T):
            z = (K[h // groups, : i + 1].astype(np.float64) @ Q[h, i].astype(np.float64)) * scaling
            e = np.exp(z - z.max())
            out[h, i, : i + 1] = e / e.sum()
    return out


def group_mean(per_query_head, H):
    """The mean [H, ...] over the query heads [Hq, ...] of each key-value head."""
    return per_query_head.reshape(H, -1, *per_query_head.shape[1:]).mean(1)


def column_sums(Q, K, scaling):
    """What every column receives over all rows, [Hq, T]."""
    return attention(Q, K, scaling).sum(1)

"""H2O, RoCo, TOVA and StreamingLLM on a prompt, with the whole attention matrix at hand."""

import math

import numpy as np

from reference.budgets import best, counted, ends, even, kept, share_of, total, uniformly
from reference.dense import attention, column_sums, group_mean


def h2o(layers, row, scaling, *, keep, recent=0.5, statistic="sum", scope="native"):
    """Heavy hitters: the most attention over all rows, and the newest tokens."""
    T = len(row.kind)
    scores = []
    for Q, K, _ in layers:
        c = group_mean(column_sums(Q, K, scaling), K.shape[0])
        if statistic == "mean":
            c = c / np.array([T - j for j in range(T)])
        scores.append(c)
    return uniformly(scores, row, scope, ends(row, scope, 0, share_of(recent, keep, T)), keep)


def moments(Q, K, scaling):
    """Mean and standard deviation [H, T] of what a column got from the rows that see it."""
    A = group_mean(attention(Q, K, scaling), K.shape[0])
    H, T = A.shape[:2]
    mean, std = np.zeros((H, T)), np.zeros((H, T))
    for h in range(H):
        for j in range(T):
            received = [A[h, i, j] for i in range(j, T)]
            mean[h, j] = sum(received) / len(received)
            squares = sum(a * a for a in received) / len(received)
            std[h, j] = math.sqrt(max(0.0, squares - mean[h, j] ** 2))
    return mean, std


def roco(
    layers,
    row,
    scaling,
    *,
    keep,
    variant="roco",
    sinks=4,
    newest=10,
    spread=0.3,
    scope="native",
):
    """Mean attention, but what fluctuates most stays; "lookm" is LOOK-M's row of that name."""
    T, N = len(row.kind), len(layers)
    if variant == "lookm":
        scores = [group_mean(column_sums(Q, K, scaling), K.shape[0]) / T for Q, K, _ in layers]
        return uniformly(scores, row, scope, ends(row, scope, 0, share_of(0.5, keep, T)), keep)
    tokens, _ = counted(row, scope)
    pinned = ends(row, scope, sinks, newest)
    going = [j for j in tokens if j not in pinned]
    out = []
    for (Q, K, _), count in zip(layers, even(total(keep, len(tokens), N), N), strict=True):
        means, stds = moments(Q, K, scaling)
        layer = []
        for mean, std in zip(means, stds, strict=True):
            room = max(0, count - len(pinned))
            unsafe = best(std, going, min(room, math.floor(spread * count + 1e-6)))
            tiers = {j: 1 for j in unsafe}
            layer.append(kept(mean, row, scope, pinned, count, tiers))
        out.append(layer)
    return out


def tova(layers, row, scaling, *, keep, scope="native"):
    """What the last row attends to, on average over all query heads: one set for all heads."""
    scores = []
    for Q, K, _ in layers:
        last = attention(Q, K, scaling)[:, -1].mean(0)
        scores.append([last] * K.shape[0])
    return uniformly(scores, row, scope, [], keep)


def streaming(layers, row, scaling, *, keep, sinks=4, scope="native"):
    """The first tokens and the newest ones."""
    T = len(row.kind)
    scores = [[list(range(T))] * K.shape[0] for _, K, _ in layers]
    return uniformly(scores, row, scope, ends(row, scope, sinks, 0), keep)

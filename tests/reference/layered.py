"""VL-Cache and CAKE on a prompt: layers share by what their rows look like, in one shot."""

import math

import numpy as np

from reference.budgets import by_weight, counted, share_of, total
from reference.common import behind, entropy, observed, pool, selected, unbiased, window_in
from reference.dense import group_mean


def sparsity(a, rows, threshold):
    """The share of causal entries [R, T] below the threshold times their row's largest."""
    gone = pairs = 0
    for i, seen in enumerate(rows):
        most = max(a[i][: seen + 1])
        gone += sum(x < threshold * most for x in a[i][: seen + 1])
        pairs += seen + 1
    return gone / pairs


def vlcache(
    layers,
    row,
    scaling,
    *,
    keep,
    threshold=0.01,
    window=0.1,
    heads="shared",
    least=0.01,
    scope="native",
):
    """The text behind the last image ranks by its sums; layers share by how dense they are."""
    tokens, _ = counted(row, scope)
    n, N, T = len(tokens), len(layers), len(row.kind)
    w = share_of(window, keep, T) if scope == "native" else 0
    pinned = list(range(T - w, T))
    rows = behind(row) or [j for j in tokens if row.kind[j] == 1][-32:]
    densities, scores = [], []  # shares are in proportion to densities, which need no sum of 1
    for Q, K, _ in layers:
        a = observed(Q, K, scaling, rows)
        gammas = [sparsity(head, rows, threshold) for head in a]
        densities.append(1 - sum(gammas) / len(gammas))
        sums = sum(a[:, i] for i in range(len(rows)))
        shared = [sum(sums)] * K.shape[0]
        scores.append(shared if heads == "shared" else group_mean(sums, K.shape[0]))
    floor = max(0, math.ceil(least * n - 1e-6) - w)
    counts = by_weight(densities, total(keep, n, N), n, w, floor)
    sizes = [[count] * len(layer) for count, layer in zip(counts, scores, strict=True)]
    return selected(scores, sizes, row, scope, pinned)


def preference(a, columns, tau1, tau2):
    """How much a layer asks for: its attention [Hq, R, T] is spread, and it shifts."""
    spread = sum(entropy(a[h, i, columns]) for h in range(len(a)) for i in range(a.shape[1]))
    shift = sum(float(unbiased(head)[columns].sum()) for head in a)
    return max(0.0, spread) ** (1 / tau1) * shift ** (1 / tau2)


def cake(
    layers,
    row,
    scaling,
    *,
    keep,
    window=32,
    kernel=5,
    gamma=200.0,
    tau1=1.0,
    tau2=1.0,
    window_of="text",
    pool_over="rows",
    scope="native",
):
    """Mean and variance of what the window sees; layers share once all have been read."""
    own = window_in(row, window, window_of, scope)
    n, N = len(counted(row, scope)[0]), len(layers)
    asks, scores = [], []
    for Q, K, _ in layers:
        a = observed(Q, K, scaling, own.rows)
        asks.append(preference(a, own.going, tau1, tau2))
        worth = np.array([sum(head) / len(head) + gamma * unbiased(head) for head in a])
        worth = pool(group_mean(worth, K.shape[0]), row, own.columns, kernel, "avg", pool_over)
        scores.append(worth)
    counts = by_weight(asks, total(keep, n, N), n, len(own.pinned))
    sizes = [[count] * len(layer) for count, layer in zip(counts, scores, strict=True)]
    return selected(scores, sizes, row, scope, own.pinned)

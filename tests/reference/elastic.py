"""Elastic Cache and PrefixKV on a prompt: one score per layer, shared by its heads."""

import numpy as np

from reference.budgets import by_weight, counted, ends, even, kept, total
from reference.dense import column_sums


def importance(layers, scaling):
    """What every column receives over all rows, on average over the query heads: N times [T]."""
    return [column_sums(Q, K, scaling).mean(0) for Q, K, _ in layers]


def buckets(stay, going):
    """Which positions every kept one stands for; `going` are those that give and receive."""
    groups = {j: [j] for j in stay}
    anchors = [j for j in stay if j in going]
    for j in going:
        if j not in groups and anchors:
            groups[min(anchors, key=lambda a: (abs(a - j), a))].append(j)
    return groups


def averaged(x, stay, groups):
    """The means [K, D] of the groups of rows of x [T, D]."""
    return np.array([x[groups[j]].mean(0) for j in stay]).reshape(len(stay), x.shape[-1])


def elastic(layers, row, scaling, *, keep, sinks=1, merge=None, scope="native"):
    """Kept positions, and per layer and head the keys and values after bucket merging."""
    merge = scope == "native" if merge is None else merge
    tokens, _ = counted(row, scope)
    pinned = ends(row, scope, sinks, 1)
    going = [j for j in tokens if j not in pinned]
    counts = even(total(keep, len(tokens), len(layers)), len(layers))
    positions, merged = [], []
    for (_, K, V), scores, count in zip(layers, importance(layers, scaling), counts, strict=True):
        stay = kept(scores, row, scope, pinned, count)
        groups = buckets(stay, going if merge else [])
        positions.append([list(stay) for _ in K])
        heads = zip(K.astype(np.float64), V.astype(np.float64), strict=True)
        merged.append([(averaged(k, stay, groups), averaged(v, stay, groups)) for k, v in heads])
    return positions, merged


def cumulated(scores):
    """The share of the mass that the best 1, 2, ... candidates hold together."""
    ordered = sorted(scores, reverse=True)
    whole = sum(ordered)
    ordered = [x / whole if whole > 0 else 1 / len(ordered) for x in ordered]
    return [sum(ordered[: o + 1]) for o in range(len(ordered))]


def reaching(P, p):
    """The fewest candidates that hold the share p, less what rounding takes."""
    return next((o for o, mass in enumerate([0.0, *P]) if mass >= p - 1e-7), len(P))


def online_sizes(scores, tokens):
    """How many candidates every layer keeps, `tokens` in all, by one share p of the mass.

    With P_l(o) the share that the o best candidates of layer l hold, o_l(p) is the smallest o with
    P_l(o) >= p - 1e-7. The share p is found in at most 64 halvings of [0, 1] such that the sum of
    o_l(p) is the largest not above `tokens`. What is missing then goes out one by one, each to the
    layer with the smallest P_l(o_l + 1), the earlier one if equal, that is not yet whole.
    """
    P = [cumulated(x) for x in scores]
    low, high = 0.0, 1.0
    if sum(reaching(x, high) for x in P) <= tokens:
        low = high
    for _ in range(64):
        middle = (low + high) / 2
        if sum(reaching(x, middle) for x in P) <= tokens:
            low = middle
        else:
            high = middle
    sizes = [reaching(x, low) for x in P]
    for _ in range(min(tokens, sum(len(x) for x in P)) - sum(sizes)):
        open_layers = [i for i, x in enumerate(P) if sizes[i] < len(x)]
        sizes[min(open_layers, key=lambda i: (P[i][sizes[i]], i))] += 1
    return sizes


def prefixkv(layers, row, scaling, *, keep, sizes="online", sinks=1, scope="native"):
    """Every layer loses the same share of its mass; or `sizes` are the shares of the layers."""
    N = len(layers)
    tokens, _ = counted(row, scope)
    pinned = ends(row, scope, sinks, 1)
    scores = importance(layers, scaling)
    whole = total(keep, len(tokens), N)
    if sizes != "online":
        counts = by_weight(list(sizes), whole, len(tokens), len(pinned))
    elif whole < len(pinned) * N:
        counts = even(whole, N)
    else:
        going = [j for j in tokens if j not in pinned]
        mass = [[float(x[j]) for j in going] for x in scores]
        rest = online_sizes(mass, whole - len(pinned) * N)
        counts = [x + len(pinned) for x in rest]
    return [
        [kept(x, row, scope, pinned, count) for _ in K]
        for (_, K, _), x, count in zip(layers, scores, counts, strict=True)
    ]

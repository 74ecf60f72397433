"""TGV-KV on a prompt: text rows behind the image, weighed by what later text sees in them."""

import numpy as np

from reference.budgets import by_weight, counted, ends, kept, total
from reference.dense import attention


def observing(kind):
    """The text rows behind the last image, or without such text the last 32 visual ones."""
    visual = [j for j, x in enumerate(kind) if x == 1]
    behind = [j for j in range(len(kind)) if not visual or j > visual[-1]]
    return behind or visual[-32:]


def grounded(A, rows, kind):
    """The score of every column [T], and the layer's mass, from head-mean attention [T, T]."""
    n = len(rows)
    weights = [sum(A[rows[i], rows[j]] for i in range(j, n)) / (n - j) for j in range(n)]
    scores = np.zeros(len(kind))
    for k in range(len(kind)):
        if kind[k] == 1:
            scores[k] = sum(u * A[t, k] for u, t in zip(weights, rows, strict=True))
        else:
            scores[k] = sum(A[t, k] for t in rows)
    mass = sum(A[t, k] for t in rows for k in range(len(kind)) if kind[k] == 1)
    return scores, float(mass)


def tgvkv(observed, row, scaling, /, *, keep, sinks=4, layers="mass", scope="native"):
    """Visual tokens go first, then text; one set per layer. `layers` says how they share."""
    tokens, _ = counted(row, scope)
    pinned = ends(row, scope, sinks, 1)
    rows = observing(row.kind)
    seen = [grounded(attention(Q, K, scaling).mean(0), rows, row.kind) for Q, K, _ in observed]
    weights = [mass if layers == "mass" else 1.0 for _, mass in seen]
    counts = by_weight(weights, total(keep, len(tokens), len(seen)), len(tokens), len(pinned))
    text = {j: 1 for j in tokens if row.kind[j] != 1}
    return [
        [kept(scores, row, scope, pinned, count, text) for _ in K]
        for (_, K, _), (scores, _), count in zip(observed, seen, counts, strict=True)
    ]

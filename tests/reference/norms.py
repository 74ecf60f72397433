"""Scores without attention: norms of keys and values, KeyDiff, Expected Attention."""

import numpy as np

from reference.budgets import counted, ends, uniformly
from reference.dense import group_mean


def knorm(layers, row, scaling, *, keep, skip_layers=0, scope="native"):
    """The shortest keys; the first layers keep everything, on top of the others' budget."""
    everything = list(range(len(row.kind)))
    dense = [[list(everything) for _ in K] for _, K, _ in layers[:skip_layers]]
    scores = [-np.linalg.norm(K.astype(np.float64), axis=-1) for _, K, _ in layers[skip_layers:]]
    return dense + (uniformly(scores, row, scope, [], keep) if scores else [])


def vnorm(layers, row, scaling, *, keep, scope="native"):
    """The longest values."""
    scores = [np.linalg.norm(V.astype(np.float64), axis=-1) for _, _, V in layers]
    return uniformly(scores, row, scope, [], keep)


def unit(x):
    return x / max(np.linalg.norm(x), 1e-12)


def keydiff(layers, row, scaling, *, keep, scope="native"):
    """The keys that point away from the sum of all unit keys of the row."""
    scores = []
    for _, K, _ in layers:
        K = K.astype(np.float64)
        layer = []
        for keys in K:
            mean = unit(sum(unit(k) for k in keys))
            layer.append([-float(unit(k) @ mean) for k in keys])
        scores.append(layer)
    return uniformly(scores, row, scope, [], keep)


def turned(inv_freq, position, D):
    """The rotation matrix [D, D] of a position: dimension d turns together with d + D'/2."""
    R, half = np.eye(D), len(inv_freq)
    for d, frequency in enumerate(inv_freq):
        c, s = np.cos(position * frequency), np.sin(position * frequency)
        R[d, d], R[d, d + half] = c, -s
        R[d + half, d], R[d + half, d + half] = s, c
    return R


def moments(q, back, ahead):
    """Mean [D] and covariance [D, D] of one head's queries [R, D], turned back and then ahead."""
    q = np.stack([B @ x for B, x in zip(back, q, strict=True)])
    mean = q.mean(0)
    covariance = sum(np.outer(x - mean, x - mean) for x in q) / len(q)
    return ahead @ mean, ahead @ covariance @ ahead.T


def turns(rotation, rows, T, future, D):
    """The matrices that turn every row back to position 0, and their mean over the future."""
    if rotation is None:
        return [np.eye(D)] * len(rows), np.eye(D)
    (inv_freq,) = rotation
    ahead = sum(turned(inv_freq, p, D) for p in range(T, T + future)) / future
    return [turned(inv_freq, p, D).T for p in rows], ahead


def expected(
    layers,
    row,
    scaling,
    *,
    keep,
    future=512,
    sinks=4,
    covariance=True,
    values=True,
    epsilon=0.0,
    rotation=None,
    scope="native",
):
    """What queries yet to come would attend to, if they were Gaussian.

    The rows are the positions from `sinks` on (all if there are none); `rotation` is
    (frequencies [D'/2],), or None for queries and keys that are not rotated.
    """
    T = len(row.kind)
    rows = list(range(sinks, T)) or list(range(T))
    pinned = ends(row, scope, sinks, 0)
    going = [j for j in counted(row, scope)[0] if j not in pinned]
    back, ahead = turns(rotation, rows, T, future, layers[0][0].shape[-1])
    scores = []
    for Q, K, V in layers:
        Q, K, V = (x.astype(np.float64) for x in (Q, K, V))
        groups = len(Q) // len(K)
        p = np.zeros((len(Q), T))
        for h in range(len(Q) if going else 0):
            mean, spread = moments(Q[h, rows], back, ahead)
            keys = K[h // groups]
            z = np.array([mean @ keys[j] * scaling for j in going])
            if covariance:
                z = z + [0.5 * scaling**2 * keys[j] @ spread @ keys[j] for j in going]
            e = np.exp(z - z.max())
            p[h, going] = e / e.sum()
        score = group_mean(p, len(K)) + epsilon
        scores.append(score * np.linalg.norm(V, axis=-1) if values else score)
    return uniformly(scores, row, scope, pinned, keep)

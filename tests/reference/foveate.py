"""Foveate's own preset on a prompt: sharp looks, their surroundings, lengths of values."""

import math

import numpy as np

from reference.budgets import counted, largest_remainder, total
from reference.common import behind, group_mean, observed, selected
from reference.mixkv import mean, norm, stretched


def observers(row, window):
    """Whose queries count: the last text behind the last image, or the last 32 visual tokens."""
    visual = [j for j, x in enumerate(row.kind) if x == 1]
    return behind(row)[-window:] or visual[-32:]


def peaks(Q, K, scaling, rows, fade, power=2):
    """The faded mean of attention to a power, [H, T]."""
    a = observed(Q, K, scaling, rows)
    weights = [fade ** (len(rows) - 1 - i) for i in range(len(rows))]
    seen = sum(w * a[:, i] ** power for i, w in enumerate(weights)) / sum(weights)
    return group_mean(seen, K.shape[0])


def places(row):
    """For every visual token its image, frame, row and column; rows of the image's frames."""
    out, inside = {}, {}
    for j, span in enumerate(row.span):
        if row.kind[j] != 1:
            continue
        size = row.span.count(span)
        known = span < len(row.grids) and math.prod(row.grids[span]) == size
        _, h, w = row.grids[span] if known else (1, 1, size)
        n = inside.get(span, 0)
        inside[span] = n + 1
        out[j] = (span, n // (h * w), n // w % h, n % w, h)
    return out


def nearby(scores, row, before, after, far):
    """Every visual token's highest score of all that are handed to it."""
    where = places(row)
    out = list(scores)
    for j, (span, frame, r, c, rows) in where.items():
        for i, (span_i, frame_i, r_i, c_i, _) in where.items():
            if (span, frame) != (span_i, frame_i):
                continue
            beside = -before <= c - c_i <= after
            if r == r_i and beside:
                share = 1.0
            elif (r == r_i and rows > 1) or (abs(r - r_i) == 1 and beside):
                share = far
            else:
                continue
            out[j] = max(out[j], share * scores[i])
    return out


def worth(Q, K, V, row, scaling, scope, fade, before, after, far, values, window):
    """The scores of one layer, [H][T]."""
    going = counted(row, scope)[0]
    out = []
    for h, seen in enumerate(peaks(Q, K, scaling, observers(row, window), fade)):
        near = nearby([float(x) for x in seen], row, before, after, far)
        added = [0.0] * len(near)
        if going:
            level = values * mean([near[j] for j in going])
            for j, x in zip(going, stretched([norm(V[h][j]) for j in going], level), strict=True):
                added[j] = x
        out.append([a + b for a, b in zip(near, added, strict=True)])
    return out


def joint(scores, going, tokens, alpha):
    """Counts [N][H] that sum to `tokens`: who holds the best of all, and an even part."""
    N, H = len(scores), len(scores[0])
    line = sorted(
        ((-scores[n][h][j], n, h) for n in range(N) for h in range(H) for j in going),
    )
    found = [0] * (N * H)
    for _, n, h in line[:tokens]:
        found[n * H + h] += 1
    shares = [(1 - alpha) * x + alpha * tokens / (N * H) for x in found]
    counts = largest_remainder(shares, tokens, [len(going)] * (N * H))
    return [counts[n * H : n * H + H] for n in range(N)]


def foveate(
    layers,
    row,
    scaling,
    keep,
    scope="visual",
    *,
    fade=0.5,
    before=2,
    after=5,
    far=0.3,
    values=4.0,
    alpha=0.05,
    window=32,
):
    """What every layer and head keeps, and the scores."""
    scope = "native" if scope == "unified" else "visual"
    scores = [
        worth(Q, K, V, row, scaling, scope, fade, before, after, far, values, window)
        for Q, K, V in layers
    ]
    going = counted(row, scope)[0]
    tokens = len(scores[0]) * total(keep, len(going), len(layers))
    counts = joint(scores, going, tokens, alpha)
    return selected(scores, counts, row, scope, []), np.array(scores)

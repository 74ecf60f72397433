"""LOOK-M on a prompt: text before images, and what goes is folded into its most similar key."""

import math

import numpy as np

from reference.budgets import counted, ends, even, kept, total
from reference.dense import column_sums, group_mean


def recent_tokens(keep, alpha1, alpha2, T):
    """How many of the newest tokens stay; shares are of the prompt, whole numbers are tokens."""
    if alpha1 is None:
        alpha1 = keep / 2 if alpha2 is None else keep - alpha2
    return min(math.floor(alpha1 * T + 1e-6 if isinstance(keep, float) else alpha1), T)


def cosine(a, b):
    return float(a @ b) / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-24)


def matched(keys, stay, kind, within_modality):
    """Which kept position every other one goes to, and how similar it is: {j: (c, cos)}.

    Cosines within 1e-6 are equal, and the earlier position is taken.
    """
    out = {}
    for j in range(len(keys)):
        targets = [c for c in stay if not within_modality or kind[c] == kind[j]]
        if j not in stay and targets:
            cosines = [cosine(keys[j], keys[c]) for c in targets]
            near = [c for c, s in zip(targets, cosines, strict=True) if s >= max(cosines) - 1e-6]
            out[j] = (min(near), max(cosines))
    return out


def folded(x, stay, match, merge):
    """The kept rows of x [T, D] with what was matched to them, [K, D]."""
    out = []
    for c in stay:
        parts = [x[c]]
        for j, (target, s) in match.items():
            if target == c:
                part = {"averaged": x[j], "pivotal": (x[j] + x[c]) / 2, "weighted": s * x[j]}
                parts.append(part[merge])
        out.append(sum(parts) / len(parts))
    return np.array(out).reshape(len(stay), x.shape[-1])


def lookm(
    layers,
    row,
    scaling,
    *,
    keep,
    alpha1=None,
    alpha2=None,
    merge="pivotal",
    fold="both",
    budget="union",
    text_prior=True,
    within_modality=False,
    sinks=0,
    scope="native",
):
    """Kept positions, and per layer and head the keys and values after merging.

    `fold` is "values" or "both". With `budget="union"` a layer keeps all text whatever its budget;
    without a text prior text is nothing special and there is nothing to unite with.
    """
    T, N = len(row.kind), len(layers)
    tokens, _ = counted(row, scope)
    pinned = ends(row, scope, sinks, recent_tokens(keep, alpha1, alpha2, T))
    text = [j for j in tokens if row.kind[j] != 1 and j not in pinned]
    tiers = {j: 1 for j in text} if text_prior else {}
    least = len(pinned) + len(text) if budget == "union" and text_prior else 0
    positions, merged = [], []
    for (Q, K, V), count in zip(layers, even(total(keep, len(tokens), N), N), strict=True):
        scores = group_mean(column_sums(Q, K, scaling), K.shape[0])
        layer, after = [], []
        for h, (keys, values) in enumerate(
            zip(K.astype(np.float64), V.astype(np.float64), strict=True)
        ):
            stay = kept(scores[h], row, scope, pinned, max(count, least), tiers)
            match = {} if merge == "none" else matched(keys, stay, row.kind, within_modality)
            new_keys = folded(keys, stay, match if fold == "both" else {}, merge)
            layer.append(stay)
            after.append((new_keys, folded(values, stay, match, merge)))
        positions.append(layer)
        merged.append(after)
    return positions, merged

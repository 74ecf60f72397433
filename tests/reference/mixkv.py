"""MixKV on a prompt: what is important and what is unlike the rest, mixed per head."""

import math

from reference.common import selected
from reference.window import COUNTS, look, split

EPSILON = 1e-8


def norm(x):
    return math.sqrt(sum(float(v) ** 2 for v in x))


def mean(values):
    return sum(values) / len(values)


def stretched(values, target):
    """Values moved to 0..1 and then scaled to a mean of about `target`."""
    low, high = min(values), max(values)
    unit = [(x - low) / (high - low + EPSILON) for x in values]
    return [x * target / (mean(unit) + EPSILON) for x in unit]


def average_direction(keys):
    """The unit keys of all tokens [T][D], and their mean, not made a unit itself."""
    units = [k / max(norm(k), 1e-12) for k in keys]
    return units, sum(units) / len(units)


def redundancy(keys):
    """The mean cosine of two different keys."""
    T = len(keys)
    _, mu = average_direction(keys)
    return (T * float(mu @ mu) - 1) / (T - 1) if T > 1 else 0.0


def important(a, keys, values, going, importance):
    """How much each token that may go matters: attention, norms, or both added."""
    if importance == "none":
        return None
    attention = [float(a[j]) for j in going]
    level = mean(attention)
    terms = []
    if importance.startswith("attention"):
        terms.append(attention)
    if importance.endswith("vnorm"):
        terms.append(stretched([norm(values[j]) for j in going], level))
    if importance.endswith("knorm"):
        terms.append(stretched([-norm(keys[j]) for j in going], level))
    return [sum(parts) for parts in zip(*terms, strict=True)]


def diverse(keys, going, target):
    """How little each token that may go points where the keys of the whole row point."""
    units, mu = average_direction(keys)
    return stretched([-float(units[j] @ mu) for j in going], target)


def mixed(a, keys, values, going, importance, diversity, mix, scale, given):
    """The scores [T] of one head; `given` is its redundancy in a table."""
    keys, values = keys.astype(float), values.astype(float)
    out = [0.0] * len(keys)
    if not going:
        return out
    I = important(a, keys, values, going, importance)  # noqa: E741 - the paper's letter
    c = I
    if diversity == "keys":
        by_importance = scale == "paper" and I is not None
        target = mean(I) if by_importance else mean([float(a[j]) for j in going])
        d = diverse(keys, going, target)
        if mix == "sum":
            u, v = 1.0, 1.0
        elif mix == "half":
            u, v = 0.5, 0.5
        else:
            u = given if mix == "offline" else redundancy(keys)
            v = 1 - u
        c = d if I is None else [u * x + v * y for x, y in zip(d, I, strict=True)]
    for j, x in zip(going, c, strict=True):
        out[j] = x
    return out


def mixkv(
    observed,
    row,
    scaling,
    /,
    *,
    keep,
    host="snapkv",
    importance="attention+vnorm",
    diversity="keys",
    mix="head",
    table=None,
    scale="code",
    scope="native",
    host_table="flat",
    **options,
):
    """The host's budget, drawn from attention alone, filled by the mixed scores.

    `table` [N][H] are redundancies for mix="offline", `host_table` [N][Hq] is that of "sparsemm".
    Options: those of the host.
    """
    ours, rest = split(options)
    if host == "sparsemm":
        rest["table"] = host_table
    seen = look(observed, row, scaling, scope, **ours)
    counts = COUNTS[host](seen, keep, **rest)
    how = (seen.window.going, importance, diversity, mix, scale)
    scores = []
    for number, ((_, K, V), attention) in enumerate(zip(observed, seen.scores, strict=True)):
        given = table[number] if mix == "offline" else [None] * len(K)
        scores.append([mixed(attention[h], K[h], V[h], *how, given[h]) for h in range(len(K))])
    return selected(scores, counts, row, scope, seen.window.pinned)

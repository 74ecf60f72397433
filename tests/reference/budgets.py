"""How many tokens a layer keeps, and which ones: for one unpadded sample."""

import math


def total(keep, n, N):
    """How many of n tokens one head keeps over N layers."""
    return round(keep * n * N) if isinstance(keep, float) else min(keep, n) * N


def share_of(part, keep, T):
    """How many tokens the share `part` of the budget is."""
    budget = keep * T if isinstance(keep, float) else min(keep, T)
    return min(math.floor(part * budget + 1e-6), T)


def even(tokens, N):
    """The same for every layer; the earlier ones get the rest."""
    return [tokens // N + (layer < tokens % N) for layer in range(N)]


def level(weights, tokens, caps, floors=None):
    """Whole numbers in proportion to weights, none above its cap, with the sum `tokens`.

    None is below its floor either, and where `tokens` does not reach the floors these are it.
    """
    floors = [min(f, c) for f, c in zip(floors or [0] * len(caps), caps, strict=True)]
    tokens = max(sum(floors), min(tokens, sum(caps)))
    shares = [float(f) for f in floors]
    weighted = [i for i, w in enumerate(weights) if w > 0]
    others = [i for i, w in enumerate(weights) if not w > 0]
    if tokens > sum(caps[i] for i in weighted) + sum(floors[i] for i in others):
        for i in weighted:
            shares[i] = float(caps[i])
        free = others  # they share alike what the weighted ones cannot take
        weights = [1.0] * len(caps)
    else:
        free = weighted
    while free:
        left = tokens - sum(shares[i] for i in range(len(caps)) if i not in free)
        per_weight = left / sum(weights[i] for i in free)
        wanted = {i: weights[i] * per_weight for i in free}
        full = [i for i in free if wanted[i] > caps[i]]
        empty = [i for i in free if wanted[i] < floors[i]]
        excess = sum(floors[i] - wanted[i] for i in empty) - sum(wanted[i] - caps[i] for i in full)
        bound = empty if excess > 0 else full or empty  # the level sinks, or it rises
        for i in bound or free:
            shares[i] = float(min(max(wanted[i], floors[i]), caps[i]))
        free = [i for i in free if i not in bound] if bound else []
    return largest_remainder(shares, tokens, caps)


def largest_remainder(shares, tokens, caps):
    """Whole numbers near shares with the sum `tokens`; of equal remainders the earlier grows."""
    counts = [math.floor(x + 1e-7) for x in shares]
    by_rest = sorted(
        range(len(caps)), key=lambda i: (-round(max(0.0, shares[i] - counts[i]), 7), i)
    )
    for i in [i for i in by_rest if counts[i] < caps[i]][: tokens - sum(counts)]:
        counts[i] += 1
    return counts


def by_weight(weights, tokens, n, pinned, least=0):
    """Counts of layers of n tokens, `pinned` of them in every layer's count before the rest.

    Of the rest a layer keeps at least `least`, as far as that is not above the average.
    """
    N = len(weights)
    if tokens < pinned * N:
        return even(tokens, N)
    rest = tokens - pinned * N
    floors = [min(least, rest // N)] * N
    return [pinned + x for x in level(weights, rest, [n - pinned] * N, floors)]


def counted(row, scope):
    """The positions that `keep` counts, and those that stay on top of it."""
    T = len(row.kind)
    if scope == "native":
        return list(range(T)), []
    visual = [j for j in range(T) if row.kind[j] == 1]
    return visual, [j for j in range(T) if row.kind[j] != 1]


def ends(row, scope, sinks, recent):
    """The first and the last tokens, which are pinned natively only."""
    T = len(row.kind)
    return [j for j in range(T) if j < sinks or j >= T - recent] if scope == "native" else []


def best(scores, among, count, tiers=None):
    """The `count` best positions: higher tiers first, then higher scores, then earlier ones."""
    tiers = tiers or {}
    order = sorted(among, key=lambda j: (-tiers.get(j, 0), -scores[j], j))
    return order[: max(0, count)]


def kept(scores, row, scope, pinned, count, tiers=None):
    """What one head keeps, ascending: of too many pinned tokens the newest."""
    tokens, on_top = counted(row, scope)
    first = sorted(pinned, reverse=True)[:count]
    going = [j for j in tokens if j not in pinned]
    return sorted(on_top + first + best(scores, going, count - len(first), tiers))


def uniformly(scores, row, scope, pinned, keep):
    """What every layer and head keeps for scores [N][H][T] and layers that keep the same."""
    counts = even(total(keep, len(counted(row, scope)[0]), len(scores)), len(scores))
    return [
        [kept(head, row, scope, pinned, count) for head in layer]
        for layer, count in zip(scores, counts, strict=True)
    ]

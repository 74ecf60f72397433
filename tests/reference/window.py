"""SnapKV, PyramidKV, AdaKV and SparseMM on a prompt: one score, four ways to share a budget."""

import math
from dataclasses import dataclass

from reference.budgets import best, by_weight, counted, even, level, total
from reference.common import Window, obs, pool, selected, window_in


@dataclass
class Seen:
    """What budgets may ask for: the window, the number of counted tokens, scores [N][H][T]."""

    window: Window
    n: int
    scores: list

    @property
    def w(self):
        return len(self.window.pinned)

    @property
    def heads(self):
        return len(self.scores[0])

    def alike(self, counts):
        """Counts of layers, for every head of each."""
        return [[x] * self.heads for x in counts]


def look(
    layers,
    row,
    scaling,
    scope="native",
    *,
    window=32,
    kernel=5,
    pooling="avg",
    window_of="text",
    pool_over="rows",
):
    """The mean attention of the window, pooled."""
    own = window_in(row, window, window_of, scope)
    scores = [
        pool(obs(Q, K, scaling, own.rows), row, own.columns, kernel, pooling, pool_over)
        for Q, K, _ in layers
    ]
    return Seen(own, len(counted(row, scope)[0]), scores)


def uniform_counts(seen, keep):
    N = len(seen.scores)
    return seen.alike(by_weight([1.0] * N, total(keep, seen.n, N), seen.n, seen.w))


def line_counts(seen, keep, beta):
    """Layers in a straight line, with the exact total."""
    N = len(seen.scores)
    tokens = total(keep, seen.n, N)
    average = max(0, tokens - seen.w * N) / N
    most = min((2 - 1 / beta) * average, seen.n - seen.w)
    least = max(0.0, 2 * average - most)
    weights = [most + (least - most) * layer / max(1, N - 1) for layer in range(N)]
    return seen.alike(by_weight(weights, tokens, seen.n, seen.w))


def step_counts(seen, keep, beta):
    """The line in whole steps, as the program rounds: the total is not exact."""
    N, T, w = len(seen.scores), seen.n, seen.w
    cap = keep if isinstance(keep, int) else round(keep * T)
    if T < cap:
        return seen.alike([T] * N)
    base = cap - w
    if base < 0:  # the window alone is more than there is room for
        return seen.alike(even(total(keep, T, N), N))
    if T < 2 * base or N == 1:
        return seen.alike([min(base, T - w) + w] * N)
    mn = int(base // beta)
    mx = 2 * base - mn
    if mx >= T - w:
        mx = T - w
        mn = 2 * base - mx
    step = (mx - mn) // (N - 1)
    return seen.alike([min(mx - layer * step, T - w) + w for layer in range(N)])


def pyramid_counts(seen, keep, beta=20.0, rounding="exact"):
    return (line_counts if rounding == "exact" else step_counts)(seen, keep, beta)


def compared(seen, scores, base, normalize):
    """Every (score, head, position) of a layer that may go, as heads are compared."""
    out = []
    for h, head in enumerate(scores):
        factor = 1.0
        if normalize:
            top = sum(head[j] for j in best(head, seen.window.going, base))
            whole = sum(head[j] for j in seen.window.going)
            factor = top / whole if whole > 0 else 1.0
        out += [(head[j] * factor, h, j) for j in seen.window.going]
    return out


def ada_counts(
    seen, keep, alpha=0.2, normalize=False, layers="uniform", beta=20.0, rounding="exact"
):
    """Heads share their layer's budget by their part of its best scores."""
    H, w = seen.heads, seen.w
    outer = uniform_counts(seen, keep)
    if layers == "pyramid":
        outer = pyramid_counts(seen, keep, beta, rounding)
    counts = []
    for scores, (count, *_) in zip(seen.scores, outer, strict=True):
        base = max(0, count - w)
        pooled = sorted(compared(seen, scores, base, normalize), key=lambda x: (-x[0], *x[1:]))
        found = [h for _, h, _ in pooled[: H * base]]
        n = [found.count(h) for h in range(H)]
        cap = len(seen.window.going)
        if base >= cap:
            own = [cap] * H  # all of it, whatever the rounding
        elif rounding == "official":
            own = [min(cap, round(x * (1 - alpha) + int(alpha * base))) for x in n]
        else:
            shares = [(1 - alpha) * x + alpha * base for x in n]
            own = level(shares, H * base, [cap] * H)
        counts.append([min(count, w) + x for x in own])
    return counts


def grouped(table, N, H):
    """Scores per key-value head [N][H] with the sum 1, from those per query head."""
    if isinstance(table, str):
        return [[1 / (N * H)] * H for _ in range(N)]  # "flat"
    groups = [len(line) // H for line in table]
    s = [
        [sum(line[h * G : (h + 1) * G]) for h in range(H)]
        for line, G in zip(table, groups, strict=True)
    ]
    whole = sum(sum(line) for line in s)
    if not whole > 0:
        return grouped("flat", N, H)
    return [[x / whole for x in line] for line in s]


def table_counts(seen, keep, table="flat", rho=0.1, redistribute=False):
    """Heads of all layers share the budget by a table: a share rho alike, the rest by score."""
    N, H, w = len(seen.scores), seen.heads, seen.w
    tokens = total(keep, seen.n, N)
    if tokens < w * N:
        return seen.alike(even(tokens, N))
    M = (tokens - w * N) / N
    cap = seen.n - w
    wanted = [rho * M + s * (M - rho * M) * N * H for line in grouped(table, N, H) for s in line]
    if redistribute:
        own = level(wanted, H * (tokens - w * N), [cap] * (N * H))
    else:
        own = [nearest(min(x, cap)) for x in wanted]
    return [[w + x for x in own[layer * H : (layer + 1) * H]] for layer in range(N)]


def nearest(x):
    """The nearest whole number; halves, up to what rounding makes of them, go to the even one."""
    below = math.floor(x)
    return below + below % 2 if abs(x - below - 0.5) < 1e-7 else round(x)


COUNTS = {
    "snapkv": uniform_counts,
    "pyramidkv": pyramid_counts,
    "adakv": ada_counts,
    "sparsemm": table_counts,
}
WINDOW = ("window", "kernel", "pooling", "window_of", "pool_over")


def split(options):
    """Options of the window, and those of the budget."""
    ours = {name: x for name, x in options.items() if name in WINDOW}
    return ours, {name: x for name, x in options.items() if name not in WINDOW}


def chosen(host, layers, row, scaling, keep, scope, options):
    ours, rest = split(options)
    seen = look(layers, row, scaling, scope, **ours)
    counts = COUNTS[host](seen, keep, **rest)
    return selected(seen.scores, counts, row, scope, seen.window.pinned)


def snapkv(layers, row, scaling, *, keep, scope="native", **options):
    """The same number in every layer and head. Options: those of `look`."""
    return chosen("snapkv", layers, row, scaling, keep, scope, options)


def pyramidkv(layers, row, scaling, *, keep, scope="native", **options):
    """Fewer in later layers. Options: beta, rounding, and those of `look`."""
    return chosen("pyramidkv", layers, row, scaling, keep, scope, options)


def adakv(observed, row, scaling, /, *, keep, scope="native", **options):
    """Heads compete. Options: alpha, normalize, layers, beta, rounding, and those of `look`."""
    return chosen("adakv", observed, row, scaling, keep, scope, options)


def sparsemm(layers, row, scaling, *, keep, scope="native", **options):
    """Heads by a table [N][Hq]. Options: table, rho, redistribute, and those of `look`."""
    return chosen("sparsemm", layers, row, scaling, keep, scope, options)

"""AirCache for one unpadded sample, step by step as the paper numbers it, in double precision."""

import math
from dataclasses import dataclass

import numpy as np


@dataclass
class Options:
    keep: float | int = 0.1
    alpha: float = 0.9
    window: str = "elite"
    window_rows: int = 32
    window_heads: str = "mean_prob"
    text: str = "after_last_visual"
    exclude_special: bool = False
    softmax: str = "restricted"
    heads: str = "shared"
    budget: str = "both"
    beta: float = 20.0
    norm: str = "sum"
    k_min: int = 1
    overflow: str = "redistribute"
    negative_skew: str = "clamp0"
    skew_space: str = "raw"
    ties: str = "earlier"
    per_image_floor: int = 0
    scope: str = "visual"


@dataclass
class Layer:
    windows: list  # per query head, the window's positions
    importance: np.ndarray  # [H, T]
    strength: float
    skewness: float
    fallback: bool
    budget: int = 0
    kept: tuple = ()  # per key-value head, the kept positions


def softmax(logits):
    top = max(logits)
    exps = [math.exp(x - top) for x in logits]
    return [x / sum(exps) for x in exps]


def instruction(kind, special, o):
    visual = [i for i, k in enumerate(kind) if k == 1]
    text = [i for i, k in enumerate(kind) if k == 0]
    if o.text == "after_last_visual":
        text = [i for i in text if not visual or i > visual[-1]]
    elif o.text == "after_first_visual":
        text = [i for i in text if visual and i > visual[0]]
    elif o.text == "all_text_but_sink":
        text = [i for i in text if i > 0]
    return [i for i in text if not (o.exclude_special and special[i])]


def elite(a, text, alpha):
    """Step 2: a maps instruction positions to attention."""
    return [j for j in text if a[j] >= alpha * max(a.values()) - 1e-9]


def windows(Q, K, text, scaling, o):
    """Steps 1 and 2: the window of every query head."""
    heads, groups = Q.shape[0], Q.shape[0] // K.shape[0]
    last = text[-1]
    if o.window_heads == "concat_logits":
        z = [
            sum(Q[h, last] @ K[h // groups, j] for h in range(heads)) * scaling / math.sqrt(heads)
            for j in text
        ]
        a = dict(zip(text, softmax(z), strict=True))
        return [elite(a, text, o.alpha)] * heads
    per_head = []
    for h in range(heads):
        z = [(Q[h, last] @ K[h // groups, j]) * scaling for j in text]
        per_head.append(softmax(z))
    out = []
    for h in range(heads):
        if o.window_heads == "mean_prob":
            mine = per_head
        elif o.window_heads == "per_kv_group":
            mine = [per_head[x] for x in range(heads) if x // groups == h // groups]
        else:
            mine = [per_head[h]]
        a = {j: sum(p[i] for p in mine) / len(mine) for i, j in enumerate(text)}
        out.append(elite(a, text, o.alpha))
    return out


def chosen_windows(Q, K, kind, special, scaling, o):
    visual = [i for i, k in enumerate(kind) if k == 1]
    text = instruction(kind, special, o)
    heads = Q.shape[0]
    if o.window == "last_visual" and visual:
        return [visual[-o.window_rows :]] * heads, False
    if not text:
        return [visual[-32:]] * heads, True
    if o.window == "contiguous":
        return [text[-o.window_rows :]] * heads, False
    if o.window == "all_text":
        return [text] * heads, False
    return windows(Q, K, text, scaling, o), False


def importance(Q, K, candidates, window, scaling, o):
    """Steps 3 and 4, not yet averaged over heads: [Hq, T]."""
    heads, T = Q.shape[0], Q.shape[1]
    groups = heads // K.shape[0]
    out = np.zeros((heads, T))
    for h in range(heads):
        columns = (
            sorted(set(candidates) | set(window[h])) if o.softmax == "restricted" else range(T)
        )
        for e in window[h]:
            seen = [j for j in columns if j <= e]
            p = softmax([(Q[h, e] @ K[h // groups, j]) * scaling for j in seen])
            for j, value in zip(seen, p, strict=True):
                if j in candidates:
                    out[h, j] += value / len(window[h])
    return out


def skewness(x):
    """Step 6."""
    n = len(x)
    if n < 3 or max(x) - min(x) <= 1e-6 * max(abs(v) for v in x):
        return 0.0
    mean = sum(x) / n
    sigma = math.sqrt(sum((v - mean) ** 2 for v in x) / (n - 1))
    return n / ((n - 1) * (n - 2)) * sum(((v - mean) / sigma) ** 3 for v in x)


def normalised(x, o):
    """Step 7."""
    n = len(x)
    x = [round(v, 9) for v in x]  # the sum of a softmax is 1, not nearly 1
    if o.norm == "softmax_z":
        mean = sum(x) / n
        std = math.sqrt(sum((v - mean) ** 2 for v in x) / n)
        return softmax([(v - mean) / std if std else 0.0 for v in x])
    x = [max(v, 0) for v in x] if o.negative_skew == "clamp0" else [v - min(0, *x) for v in x]
    if o.norm == "minmax":
        x = [(v - min(x)) / (max(x) - min(x)) if max(x) > min(x) else 0.0 for v in x]
    return [v / sum(x) if sum(x) > 0 else 1 / n for v in x]


def budgets(strength, skew, V, o):
    """Steps 7 to 9."""
    N = len(strength)
    R = round(o.keep * V * N) if isinstance(o.keep, float) else min(o.keep, V) * N
    k_min = min(o.k_min, V)
    if o.budget == "uniform":
        w = [1 / N] * N
    elif o.budget == "pyramid":
        most = min((2 - 1 / o.beta) * R / N, V)
        least = max(0, 2 * R / N - most)
        w = [most + (least - most) * i / max(1, N - 1) for i in range(N)]
    else:
        parts = {"both": (strength, skew), "strength": (strength,), "skewness": (skew,)}[o.budget]
        shares = [normalised(x, o) for x in parts]
        w = [sum(s[i] for s in shares) / len(shares) for i in range(N)]
    if o.overflow == "clip_only" and o.budget in ("both", "strength", "skewness"):
        r = [min(max(x * R, k_min), V) for x in w]
        return largest_remainder(r, round(sum(r)), V)
    if R <= N * k_min:
        return [k_min] * N
    if R > sum(
        V if x > 0 else k_min for x in w
    ):  # the weightless share what the others cannot take
        R_left = R - sum(V for x in w if x > 0)
        return mixed(w, largest_remainder([R_left / w.count(0)] * w.count(0), R_left, V), V)
    low, high = 0.0, 1e12
    for _ in range(400):
        level = (low + high) / 2
        r = [min(max(level * x, k_min), V) for x in w]
        low, high = (level, high) if sum(r) < R else (low, level)
    return largest_remainder(r, R, V)


def mixed(w, rest, V):
    return [V if x > 0 else rest.pop(0) for x in w]


def largest_remainder(r, total, V):
    k = [math.floor(x + 1e-7) for x in r]
    by_rest = sorted(range(len(r)), key=lambda i: (-round(max(0, r[i] - k[i]), 7), i))
    for i in [i for i in by_rest if k[i] < V][: total - sum(k)]:
        k[i] += 1
    return k


def kept(values, candidates, k, span, floors, o):
    """Step 10: the k best candidates of one head."""
    bits = (len(span)).bit_length()
    number = {c: i for i, c in enumerate(candidates)}
    tie = {c: int(format(i, f"0{bits}b")[::-1], 2) for c, i in number.items()}
    if o.ties == "earlier":
        tie = number
    first = sorted(candidates, key=lambda c: (c not in floors, -values[c], tie[c]))
    return sorted(first[:k])


def aircache(layers, kind, special, span, scaling, o):
    """The whole of it; layers is a list of (Q [Hq, T, d], K [H, T, d])."""
    T = len(kind)
    candidates = [i for i in range(T) if o.scope == "unified" or kind[i] == 1]
    out = []
    for Q, K in layers:
        window, fallback = chosen_windows(Q, K, kind, special, scaling, o)
        per_head = importance(Q, K, candidates, window, scaling, o)
        mean = per_head.mean(0)
        x = [float(mean[c]) for c in candidates]
        y = [math.log(max(v, 1.1754943508222875e-38)) for v in x] if o.skew_space == "log" else x
        H = K.shape[0]
        by_head = (
            np.stack([mean] * H) if o.heads == "shared" else per_head.reshape(H, -1, T).mean(1)
        )
        out.append(Layer(window, by_head, sum(x), skewness(y), fallback))
    counts = budgets([x.strength for x in out], [x.skewness for x in out], len(candidates), o)
    for layer, k in zip(out, counts, strict=True):
        layer.budget = k
        mean = layer.importance.mean(0)
        floors = set()
        for image in sorted({span[c] for c in candidates} - {-1}):
            own = [c for c in candidates if span[c] == image]
            floors |= set(sorted(own, key=lambda c: (-mean[c], c))[: o.per_image_floor])
        protected = [i for i in range(T) if i not in candidates]
        layer.kept = tuple(
            sorted(protected + kept(values, candidates, k, span, floors, o))
            for values in layer.importance
        )
    return out

"""What methods with an observation window share: who observes, what it sees, and the pooling."""

import math
from dataclasses import dataclass

import numpy as np

from reference.budgets import kept
from reference.dense import attention, group_mean


@dataclass
class Row:
    """One unpadded sample: every token is text (0) or visual (1), and visual ones have an image."""

    kind: list
    span: list  # number of the image, -1 for text
    grids: tuple = ()  # (t, h, w) per image, or shorter where they are not known


@dataclass
class Window:
    """Positions: whose queries observe, what is pinned, what may go, and what is pooled."""

    rows: list
    pinned: list
    going: list
    columns: list


def behind(row):
    """The text behind the last image, without an image all text."""
    visual = [j for j, x in enumerate(row.kind) if x == 1]
    return [j for j in range(len(row.kind)) if not visual or j > visual[-1]]


def window_in(row, window=32, window_of="text", scope="native"):
    """The window: the last text behind the last image, or ("any") the last tokens of the row.

    Without text behind the last image the last 32 visual tokens observe, and nothing is pinned.
    """
    T = len(row.kind)
    visual = [j for j in range(T) if row.kind[j] == 1]
    rows = list(range(T))[-window:] if window_of == "any" else behind(row)[-window:]
    pinned = list(rows)
    if not rows:
        rows = visual[-32:]
    if scope == "visual":
        pinned = []
    going = [j for j in (visual if scope == "visual" else range(T)) if j not in pinned]
    columns = [j for j in range(T) if j not in rows or j in going]
    return Window(rows, pinned, going, columns)


def observed(Q, K, scaling, rows):
    """What the rows see, [Hq, R, T]: each a softmax over all that it may see."""
    return attention(Q, K, scaling)[:, rows]


def obs(Q, K, scaling, rows):
    """The mean over the rows and over the query heads of a key-value head, [H, T]."""
    a = observed(Q, K, scaling, rows)
    return group_mean(sum(a[:, i] for i in range(len(rows))) / len(rows), K.shape[0])


def parts(row, over):
    """For every position the name of what pooling must not leave."""
    out, run, inside = [], 0, {}
    for j, span in enumerate(row.span):
        if j and span != row.span[j - 1]:
            run += 1  # a border between text and image, or between two images
        line = 0
        if over == "rows" and 0 <= span < len(row.grids):
            t, h, w = row.grids[span]
            if t * h * w == row.span.count(span):
                line = inside.get(span, 0) // w
            inside[span] = inside.get(span, 0) + 1
        out.append(None if over == "sequence" else (run, line))
    return out


def pool(scores, row, columns, kernel=5, pooling="avg", over="rows"):
    """Scores [H, T], each column's with the mean or maximum of its neighbours among columns."""
    out = np.array(scores, dtype=np.float64)
    if pooling == "none":
        return out
    part = parts(row, over)
    for h in range(len(out)):
        for place, j in enumerate(columns):
            near = range(max(0, place - kernel // 2), place + kernel // 2 + 1)
            near = [columns[i] for i in near if i < len(columns)]
            near = [float(scores[h][i]) for i in near if part[i] == part[j]]
            if pooling == "max":
                out[h, j] = max(near)
            else:
                out[h, j] = sum(near) / (kernel if over == "sequence" else len(near))
    return out


def selected(scores, counts, row, scope, pinned):
    """What every layer and head keeps, for scores [N][H][T] and counts [N][H]."""
    return [
        [kept(head, row, scope, pinned, n) for head, n in zip(layer, sizes, strict=True)]
        for layer, sizes in zip(scores, counts, strict=True)
    ]


def unbiased(a):
    """The variance of each column of a [R, T] over its rows; one row has none."""
    R = len(a)
    mean = sum(a) / R
    return sum((x - mean) ** 2 for x in a) / (R - 1) if R > 1 else np.zeros(a.shape[1])


def entropy(values):
    """The sum of -a log a, nothing for what is not there."""
    return -sum(float(a) * math.log(a) for a in values if a > 0)

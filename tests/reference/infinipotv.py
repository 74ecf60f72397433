"""InfiniPot-V in one shot on a prompt's visual tokens: redundancy in time, and value norms."""

import itertools
import math

import numpy as np

from reference.budgets import counted, even, total


def spans_of(row):
    """The positions of every image or video, and its grid (t, h, w) if it is known."""
    out = []
    for number in sorted(set(row.span) - {-1}):
        own = [j for j, s in enumerate(row.span) if s == number and row.kind[j] == 1]
        grid = row.grids[number] if number < len(row.grids) else None
        out.append((own, tuple(grid) if grid and math.prod(grid) == len(own) else None))
    return out


def frames_of(row):
    """Lists of positions with the same patches in the same places; none if they do not match.

    A video of known grid has as many frames as its grid says, anything else is one frame.
    """
    frames = []
    for own, grid in spans_of(row):
        size = grid[1] * grid[2] if grid else len(own)
        frames += [own[i : i + size] for i in range(0, len(own), size)]
    return frames if len({len(frame) for frame in frames}) == 1 else []


def unit(K):
    return K / (np.linalg.norm(K, axis=-1, keepdims=True) + 1e-9)


def changing(keys, frames, recent, n_tar):
    """Up to n_tar positions: recent frames, and older tokens unlike the same patch in those.

    Where n_tar does not hold all recent frames, the newest frames are taken first, and of the frame
    that is cut the earlier tokens.
    """
    f = len(frames)
    r = min(max(math.floor(recent * f + 1e-6), 1), f) if f > 1 else 0
    newest = [j for frame in frames[f - r :][::-1] for j in frame]
    if not r:
        return []
    k = unit(keys)
    tar = {}
    for frame in frames[: f - r]:
        for i, j in enumerate(frame):
            tar[j] = -sum(k[j] @ k[later[i]] for later in frames[f - r :]) / r
    older = sorted(tar, key=lambda j: (-tar[j], j))
    return (newest + older)[: max(0, n_tar)]


def averaged(x, kernel, axes):
    """The mean over a box of `kernel` along some axes of x [t, h, w], zeros outside included."""
    half = min(kernel, *(x.shape[a] for a in axes))
    half = (half - 1) // 2  # the largest odd kernel that fits
    out = np.zeros_like(x)
    steps = [range(-half, half + 1) if a in axes else [0] for a in range(3)]
    for place in np.ndindex(x.shape):
        for step in itertools.product(*steps):
            near = tuple(p + s for p, s in zip(place, step, strict=True))
            if all(0 <= p < n for p, n in zip(near, x.shape, strict=True)):
                out[place] += x[near]
    return out / (2 * half + 1) ** len(axes)


def pooled(norms, row, quarter):
    """Value norms [T] averaged inside every image: 7 in 3-D, 5 in 2-D, 3 in order, or not.

    An image of unknown grid counts as one row of tokens.
    """
    out = norms.copy()
    for own, grid in spans_of(row):
        x = norms[own].reshape(grid or (1, 1, len(own)))
        if quarter == 0:
            x = averaged(x, 7, (0, 1, 2))
        elif quarter == 1:
            x = averaged(x, 5, (1, 2))
        elif quarter == 2:
            x = averaged(x.reshape(1, 1, -1), 3, (2,))
        out[own] = x.reshape(-1)
    return out


def infinipotv(
    layers,
    row,
    scaling,
    *,
    keep,
    alpha=0.5,
    recent=0.25,
    pooling="none",
    scope="native",
):
    """Natively, too, the candidates are the visual tokens and all text stays on top."""
    N = len(layers)
    visual, text = counted(row, "visual")
    frames = frames_of(row)
    out = []
    for layer, ((_, K, V), C) in enumerate(
        zip(layers, even(total(keep, len(visual), N), N), strict=True)
    ):
        by_head = []
        for keys, values in zip(K.astype(np.float64), V.astype(np.float64), strict=True):
            van = np.linalg.norm(values, axis=-1)
            if pooling == "adaptive":
                van = pooled(van, row, layer * 4 // N)
            first = changing(keys, frames, recent, math.floor(alpha * C + 1e-6))
            rest = sorted(set(visual) - set(first), key=lambda j: (-van[j], j))
            by_head.append(sorted(text + first + rest[: C - len(first)]))
        out.append(by_head)
    return out

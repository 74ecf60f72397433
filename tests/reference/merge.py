"""Merging for one head of one unpadded sample, token by token."""

import numpy as np


def merge(keys, values, kind, scores, kept, share, nearest):
    """Return the kept keys and values by ascending position."""
    K, V = keys.astype(np.float64), values.astype(np.float64)
    anchors = [i for i in kept if kind[i] == 1]
    dropped = [i for i in range(len(kind)) if kind[i] == 1 and i not in kept]
    giving = sorted(dropped, key=lambda i: (-scores[i], i))
    giving = giving[: round(share * len(dropped))] if anchors else []
    groups = {i: [i] for i in kept}
    for i in sorted(giving):
        if nearest == "position":
            target = min(anchors, key=lambda a: (abs(a - i), a))
        else:
            target = max(
                anchors, key=lambda a: K[a] @ K[i] / np.linalg.norm(K[a]) / np.linalg.norm(K[i])
            )
        groups[target].append(i)
    new_keys = np.stack([K[groups[i]].mean(0) for i in sorted(kept)])
    new_values = np.stack([V[groups[i]].mean(0) for i in sorted(kept)])
    return new_keys, new_values

"""Slow twins of a cache: entries in lists per row and head, and a mask by its definition."""

import torch


class Entries:
    """What every head of every row stores: a list of (position, key, value), ascending."""

    def __init__(self, rows: int, heads: int) -> None:
        self.stored = [[[] for _ in range(heads)] for _ in range(rows)]
        self.start = self.seen = 0

    def append(self, keys, values):
        for row, by_head in enumerate(self.stored):
            for head, entries in enumerate(by_head):
                for t in range(keys.shape[2]):
                    entries.append((self.seen + t, keys[row, head, t], values[row, head, t]))
        self.seen += keys.shape[2]

    def pack(self, keep, stop):
        """Drop the entries of the tail before `stop` that `keep` [B, H, T] does not name."""
        for row, by_head in enumerate(self.stored):
            for head, entries in enumerate(by_head):
                by_head[head] = [
                    e
                    for e in entries
                    if not self.start <= e[0] < stop or keep[row, head, e[0] - self.start]
                ]
        self.start = stop

    def crop(self, length):
        if length >= self.seen:
            return
        self.stored = [[[e for e in h if e[0] < length] for h in row] for row in self.stored]
        self.start, self.seen = min(self.start, length), length

    def take(self, rows):
        self.stored = [[list(h) for h in self.stored[row]] for row in rows]


def slot_mask(mask, logical, query_heads, queries, start):
    """Whether query i of head h may look at slot s: it is filled and the mask allows it."""
    B, heads, L = logical.shape
    seen = torch.zeros(B, query_heads, queries, L, dtype=torch.bool)
    for b in range(B):
        for h in range(query_heads):
            for i in range(queries):
                for s in range(L):
                    at = int(logical[b, h * heads // query_heads, s])
                    if at < 0:
                        continue
                    if mask is None:
                        seen[b, h, i, s] = at <= start + i
                    elif mask.ndim == 2:
                        seen[b, h, i, s] = at <= start + i and bool(mask[b, at])
                    else:
                        seen[b, h, i, s] = bool(mask[b % len(mask), 0, i, at])
    return seen

"""Slow twins of a cache: entries in lists per row and head, and a mask by its definition."""

import torch

H, D, DV = 3, 5, 7


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


class Numbers(Entries):
    """Entries with one number each, that of decode-time eviction; new ones have zero."""

    def __init__(self, rows, heads):
        super().__init__(rows, heads)
        self.numbers = [[{} for _ in range(heads)] for _ in range(rows)]

    def retain(self, keep, number):
        """Keep the entries whose positions `keep[row][head]` names, with new numbers."""
        for row, by_head in enumerate(self.stored):
            for head, entries in enumerate(by_head):
                by_head[head] = [e for e in entries if e[0] in keep[row][head]]
                self.numbers[row][head] = {e[0]: number(row, head, e[0]) for e in by_head[head]}
        self.start = self.seen

    def crop(self, length):
        super().crop(length)
        self.numbers = [
            [{j: x for j, x in head.items() if j < length} for head in row] for row in self.numbers
        ]

    def take(self, rows):
        super().take(rows)
        self.numbers = [[dict(head) for head in self.numbers[row]] for row in rows]


def tokens(rows, count, rng):
    """Keys and values of new tokens."""
    return torch.randn(rows, H, count, D, generator=rng), torch.randn(
        rows, H, count, DV, generator=rng
    )


def check(store, twin, coded=False):
    """Whether a store holds the entries of its twin, and, if not `coded`, the bytes of these."""
    store.check()
    if store.keys is None:
        return
    logical = store.logical()
    for row in range(len(store.keys)):
        for head in range(H):
            at = logical[row, head if logical.shape[1] > 1 else 0]
            filled = at >= 0
            expected = twin.stored[row][head]
            assert at[filled].tolist() == [e[0] for e in expected]
            for found, part in ((store.keys, 1), (store.values, 2)):
                mine = found[row, head, filled]
                theirs = [e[part] for e in expected]
                assert torch.equal(mine, torch.stack(theirs) if theirs else mine[:0])
    assert store.is_gapless() == bool((logical >= 0).all())
    if coded:
        return
    needed = sum(x.nelement() * x.element_size() for x in (store.keys, store.values))
    assert needed <= store.nbytes <= needed * 16 / 15  # a small crop is a slice

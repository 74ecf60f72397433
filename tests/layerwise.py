"""Made-up rankings of many layers, with statistics of every kind."""

import torch

from foveate.types import Quota, Ranking

KINDS = ("log-normal", "steep", "spiked", "zeros", "all zero", "equal", "huge", "negative", "tiny")


def statistics(kind, shape, made):
    """Return made-up statistics of that kind."""
    normal = torch.randn(shape, generator=made, dtype=torch.float64)
    some = torch.rand(shape, generator=made) < 0.3
    return {
        "log-normal": normal.exp(),
        "steep": (4 * normal).exp(),
        "spiked": torch.where(some, (6 + normal).exp(), (normal / 4).exp()),
        "zeros": torch.where(some, normal.exp(), 0),
        "all zero": torch.zeros(shape, dtype=torch.float64),
        "equal": torch.full(shape, 0.3, dtype=torch.float64),
        "huge": ((normal * 20).exp() * 1e20).clamp(max=3e38),
        "negative": normal * 3 - 2,
        "tiny": (normal * 9 - 60).exp(),
    }[kind].float()


def rankings(seed, N, kinds=("log-normal", "spiked"), rows=3, H=2, T=40, pinned=False, wild=False):
    """Return rankings of N layers whose rows differ in length; with `wild` in every other way."""
    made = torch.Generator().manual_seed(seed)

    def whole(least, most):
        return int(torch.randint(least, most + 1, (), generator=made))

    starts = torch.tensor([whole(0, T - 1) for _ in range(rows)])[:, None]
    place = torch.arange(T)
    tiers = torch.where(place < starts, -1, 0).expand(rows, T)
    if pinned:
        tiers = tiers.masked_fill((place >= T - whole(0, 9)) & (tiers == 0), 3)
    if wild:
        some = torch.rand(rows, T, generator=made)
        tiers = tiers.masked_fill((some < 0.2) & (tiers == 0), 1)
        tiers = tiers.masked_fill((some > 0.8) & (tiers == 0), 2)
    by_head = wild and whole(0, 1)
    share = [None, 0.0, 0.3, 0.5, 0.9, 1.0][whole(0, 5)] if wild else None
    spread, mass, steps = whole(0, wild), whole(0, wild), whole(1, 9)
    stats = [statistics(kinds[i % len(kinds)], (rows, N), made) for i in range(4)]
    names = ("strength", "skewness", "mass", "other")

    def scores():
        scores = torch.rand(rows, H, T, generator=made) ** 4
        return (scores * steps).round() if wild else scores

    def turned():
        """Return the tiers in another order for every head, so many of each as there were."""
        order = torch.rand(rows, H, T, generator=made).masked_fill(tiers[:, None] < 0, -1)
        return tiers[:, None].expand(-1, H, -1).gather(-1, order.argsort(dim=-1, stable=True))

    return [
        Ranking(
            scores(),
            turned() if by_head else tiers,
            layer,
            {name: x[:, layer] for name, x in zip(names, stats, strict=True)},
            torch.rand(rows, T, generator=made).argsort(-1) if spread else None,
            None if share is None else Quota(scores(), share),
            scores() if mass else None,
        )
        for layer in range(N)
    ]

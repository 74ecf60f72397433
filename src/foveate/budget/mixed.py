"""Upper bounds of shares whose weights are not known yet, only which numbers they are mixed of.

Weights of the known layers are `sum over k of lambda[k] * rays[k]` with unknown `lambda >= 0`: what
comes later changes the sums that every statistic is divided by. `design/bounded-peak.md` has the
proofs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from foveate.kernels.allocate import water_level
from foveate.types import Float, Int

__all__ = ["Basin", "filled", "level", "mixed", "powers"]

HUGE = 1e300  # a level above every wall; times 0 it is still 0
FINE, COARSE = 1.1, 1.4  # from one mixture to the next: where both parts count, and where one does
SMALL, SMALLEST = 0.1, 1e-3  # parts in a mixture
STEEPS = 64  # intervals of the unknown slope of an exponential


@dataclass(frozen=True, eq=False)
class Basin:
    """What `m` known layers and `later` unknown ones share: `total`, from `floor` to `cap` each."""

    total: Int[Tensor, " B"]
    cap: Int[Tensor, " B"]
    floor: Int[Tensor, " B"]
    later: int

    @property
    def room(self) -> Int[Tensor, " B"]:
        """Return what is left for the known layers if the later ones keep their minimum."""
        return self.total - self.later * self.floor

    def clip(self, shares: Float[Tensor, "B m"]) -> Float[Tensor, "B m"]:
        """Return the shares between floor and cap."""
        return shares.maximum(self.floor[:, None]).minimum(self.cap[:, None])


def filled(ray: Float[Tensor, "B m"], basin: Basin) -> Float[Tensor, "B m"]:
    """Return the shares of the known layers if all others keep their minimum.

    A layer more lowers the level, so that these are upper bounds for one ray.
    """
    floor, cap = (x[:, None].expand(ray.shape) for x in (basin.floor, basin.cap))
    total = basin.room.maximum(floor.sum(-1)).minimum(cap.sum(-1))
    return water_level(ray, total, cap, floor)


def mixed(
    rays: Sequence[Float[Tensor, "B m"]], basin: Basin, whole: bool = False
) -> Float[Tensor, "B m"]:
    """Return upper bounds of the shares of the known layers, whatever the rays' parts are.

    There are one or two rays, which sum to 1 over the known layers. `whole`: weights are the mean
    of two shares, each of which sums to 1 over all layers: the later ones have what these lack.
    """
    if len(rays) == 1:
        return filled(rays[0], basin)
    x, y = rays
    both = torch.stack([torch.stack([x, y], 1), torch.stack([y, x], 1)])  # [2, B, 2, m]
    shares = pair(both[:, :, 0], both[:, :, 1], basin, whole).amax(0)
    # Where all weights are at their cap, those of weight 0 share the rest alike.
    none = (x == 0) & (y == 0)
    rest = basin.room - (~none).sum(-1) * basin.cap
    alike = rest.clamp(min=0).double() / none.sum(-1).clamp(min=1)
    return basin.clip(torch.where(none, alike[:, None], shares))


def pair(
    x: Float[Tensor, "2 B m"], y: Float[Tensor, "2 B m"], basin: Basin, whole: bool
) -> Float[Tensor, "2 B m"]:
    """Return upper bounds for weights `t x + y`, t from 0 to 1.

    The later layers are at their minimum, or share the level, or one of them is at its cap. With t
    the level falls where they are at a wall, and rises where they share it, as they lose what the
    others gain; `t * level` rises. In an interval each is taken at its higher end.
    """
    t = ratios()
    weights = t[:, None] * x[..., None, :] + y[..., None, :]  # [2, B, K, m]
    least = basin.later * basin.floor
    room, extra = [basin.total - least], [torch.zeros_like(t)]
    if whole:
        room += [basin.total, basin.total - torch.maximum(basin.cap, least)]
        extra += [1 - t, extra[0]]
    found = level(
        weights, torch.stack(room, -1)[:, None], basin.cap, basin.floor, torch.stack(extra, -1)
    )
    at, over = found[..., 1:, 0], found[..., :-1, 0]
    if whole:
        shared, walled = found[..., 1:, 1], found[..., 2]
        at = at.minimum(shared.maximum(walled[..., 1:]))
        over = over.minimum(shared.maximum(walled[..., :-1]))
    shares = (t[1:] * at)[..., None] * x[..., None, :] + over[..., None] * y[..., None, :]
    return shares.amax(-2)


@cache
def ratios() -> Float[Tensor, " K"]:
    """Return the ends of the intervals of t, from 0 to 1."""
    steps = [SMALLEST]
    while steps[-1] < 1:
        steps.append(min(steps[-1] * (FINE if steps[-1] > SMALL else COARSE), 1.0))
    return torch.tensor([0.0, *steps], dtype=torch.float64)


def level(
    weights: Float[Tensor, "*batch B K m"],
    room: Int[Tensor, "B one k"],
    cap: Int[Tensor, " B"],
    floor: Int[Tensor, " B"],
    extra: Float[Tensor, "each k"],
) -> Float[Tensor, "*batch B K k"]:
    """Return the levels at which `clip(level * weights, floor, cap)` sums to `room`.

    `level * extra` is part of the sum. Without floors the weights at their cap are found in closed
    form; then what is below its floor is fixed there, which can only lower the level.
    """
    m = weights.shape[-1]
    cap, floor, room = (x.double() for x in (cap[:, None, None], floor[:, None, None], room))
    line = weights.sort(dim=-1, descending=True).values
    tail = line.flip(-1).cumsum(-1).flip(-1)  # [*batch, B, K, m]
    tail = torch.cat([tail, torch.zeros_like(tail[..., :1])], -1)
    place = torch.arange(m)
    low = torch.zeros_like(room)  # how many are on the floor
    found = torch.full_like(room, HUGE)
    for _ in range(m + 1):
        left = room - low * floor
        bottom = extra - tail.gather(-1, (m - low).long().expand(*tail.shape[:-1], -1))
        # The weight at place c is at its cap if there is more than all it would take to be there.
        over = (left[..., None] - place * cap[..., None]) * line[..., None, :]
        full = over > cap[..., None] * (tail[..., None, :m] + bottom[..., None])
        full &= place < (m - low)[..., None]
        capped = full.sum(-1)
        slope = tail.gather(-1, capped) + bottom
        rest = (left - capped * cap).clamp(min=0)
        found = torch.where(slope > 0, rest / slope.clamp(min=1 / HUGE), HUGE).minimum(found)
        below = (line[..., None, :] * found[..., None] < floor[..., None]).sum(-1)
        if bool((below == low).all()):
            break
        low = below
    return found


def powers(values: Float[Tensor, "B m"], basin: Basin, layers: int) -> Float[Tensor, "B m"]:
    """Return upper bounds for weights `exp(values / std)`, the std being that of all layers."""
    below, steep = slopes(values, layers)
    weights = (-steep[..., None] * below[:, None]).exp()  # [B, K, m]
    room = basin.room[:, None, None]
    found = level(weights, room, basin.cap, basin.floor, torch.zeros(1, 1, dtype=torch.float64))
    # Steeper weights are lower, and the level is higher.
    return basin.clip((found[:, 1:] * weights[:, :-1]).amax(-2))


def slopes(
    values: Float[Tensor, "B m"], layers: int
) -> tuple[Float[Tensor, "B m"], Float[Tensor, "B K"]]:
    """Return how far values are below the highest, in units, and what `1 / std` may be in them.

    The squares of all layers about their mean sum to no less than those of the known ones do about
    theirs.
    """
    below = values.amax(-1, keepdim=True) - values
    unit = below.amax(-1, keepdim=True)
    below = below / unit.masked_fill(unit == 0, 1)
    squares = (below - below.mean(-1, keepdim=True)).square().sum(-1, keepdim=True)
    steepest = (layers / squares.masked_fill(squares == 0, 1)).sqrt() * (1 + 1e-9)
    return below, steepest * torch.linspace(0, 1, STEEPS + 1, dtype=torch.float64)

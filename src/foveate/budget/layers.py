"""Budgets in proportion to what each layer saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from foveate.budget.bound import above, bounded
from foveate.budget.mixed import Basin, mixed, powers, slopes
from foveate.budget.once import once
from foveate.budget.total import MOST, Supply, head_equal, spread, supply
from foveate.errors import MethodError
from foveate.kernels.allocate import round_to
from foveate.option import (
    Choice,
    Count,
    Keep,
    Share,
    Words,
    check_choice,
    check_count,
    check_share,
    plain_keep,
)
from foveate.types import Float, Int, Ranking

__all__ = ["LayerShares", "share"]

NORMS = ("sum", "minmax", "softmax_z")
NEGATIVE = ("clamp0", "shift_min")
OVERFLOW = ("redistribute", "clip_only")
TINY = 1e-6  # a share of a whole number is that number, whatever the last digits say
BITS = 20  # of a statistic that count


@dataclass(frozen=True, slots=True)
class LayerShares:
    """In proportion to the mean of the layer statistics `by`, each normalised over the layers.

    `norm`: divide by the sum ("sum"), stretch to 0..1 and then divide by the sum ("minmax"), or
    softmax of the z-scores ("softmax_z"). `negative` values are set to 0 ("clamp0"), or the lowest
    is subtracted from all ("shift_min"), before that; "softmax_z" takes them as they are.
    A layer keeps `k_min` at least and all at most; what it cannot take goes to the others in
    proportion ("redistribute"; the total is then exact) or is lost ("clip_only"). A layer also
    keeps the share `least` of its tokens, pinned ones included, as far as that is no more than the
    average budget.
    """

    keep: Keep
    by: Words = ("strength", "skewness")
    norm: Choice = "sum"
    k_min: Count = 1
    overflow: Choice = "redistribute"
    negative: Choice = "clamp0"
    least: Share = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "keep", plain_keep(self.keep))
        check_count("k_min", self.k_min)
        check_choice("norm", self.norm, NORMS)
        check_choice("overflow", self.overflow, OVERFLOW)
        check_choice("negative", self.negative, NEGATIVE)
        check_share("least", self.least)
        if not isinstance(self.by, tuple) or not self.by:
            raise MethodError(
                f"by={self.by!r} names no statistic; give a tuple such as ('strength',)"
            )

    def __call__(self, rankings: Sequence[Ranking]) -> Int[Tensor, "N B H"]:
        """Return the counts of kept candidates."""
        weights = self.weights([statistic(rankings, name) for name in self.by])
        return head_equal(self.counts(weights, supply(rankings)), rankings)

    def bounds(self, rankings: Sequence[Ranking], layers: int) -> Int[Tensor, "m B H"] | None:
        """Return upper bounds: the known layers' shares of all that the others can leave them.

        Of one statistic the known weights keep their ratios, and every layer more lowers the level.
        Sums over all layers are not known yet, nor what is subtracted from all: weights are then an
        unknown mixture of two known rays, of which the highest share is taken; so are those of two
        statistics that are divided by their sums. Of other statistics what each would give alone
        is added up, as a part of the weights fills no more than it would without the others. With
        "clip_only" shares of the known sums are bounds of shares of the whole ones.
        """

        def known(tokens: Supply) -> Int[Tensor, "B m"]:
            values = [coarse(statistic(rankings, name)) for name in self.by]
            cap, floor = tokens.going[:, 0], self.floor(tokens)[:, 0]
            total = tokens.base(self.keep)
            if self.overflow == "redistribute":
                total = total.maximum(layers * floor).minimum(layers * cap)
            basin = Basin(total, cap, floor, layers - len(rankings))
            counts = above(self.most(values, basin, layers), tokens.going[:, : len(rankings)])
            return tokens.with_pinned(self.keep, counts)

        return bounded(self, rankings, layers, known)

    def most(
        self, values: Sequence[Float[Tensor, "B m"]], basin: Basin, layers: int
    ) -> Float[Tensor, "B m"]:
        """Return bounds of the real numbers that are rounded at the end."""
        if self.overflow == "clip_only":
            most = [largest(x, self.norm, self.negative, layers) for x in values]
            return basin.clip(torch.stack(most).mean(0) * basin.total[:, None])
        if self.norm == "softmax_z":
            return basin.clip(torch.stack([powers(x, basin, layers) for x in values]).sum(0))
        found = [rays(x, self.norm, self.negative) for x in values]
        if len(found) == 2 and len(found[0]) == 1:
            return mixed([*found[0], *found[1]], basin, whole=True)
        return basin.clip(torch.stack([mixed(x, basin) for x in found]).sum(0))

    def weights(self, statistics: Sequence[Float[Tensor, "B N"]]) -> Float[Tensor, "B N"]:
        """Return the share of every layer; the shares of a row sum to 1."""
        shares = [share(values, self.norm, self.negative) for values in statistics]
        return torch.stack(shares).mean(0)

    def counts(self, weights: Float[Tensor, "B N"], tokens: Supply) -> Int[Tensor, "B N"]:
        """Return whole numbers of tokens for shares."""
        floor = self.floor(tokens)
        if self.overflow == "redistribute":
            return spread(self.keep, weights, tokens, floor)
        clipped = (weights * tokens.base(self.keep)[:, None]).clamp(floor, tokens.going)
        counts = round_to(clipped, clipped.sum(-1).round().long(), tokens.going, floor)
        return tokens.with_pinned(self.keep, counts)

    def floor(self, tokens: Supply) -> Int[Tensor, "B N"]:
        """Return how many of the tokens that may go stay in any case."""
        there = tokens.going + tokens.pinned
        average = tokens.base(self.keep)[:, None] // there.shape[-1]
        share = (self.least * there.double() - TINY).ceil().long() - tokens.pinned
        return share.minimum(average).clamp(min=min(self.k_min, MOST)).minimum(tokens.going)


def statistic(rankings: Sequence[Ranking], name: str) -> Float[Tensor, "B N"]:
    """Return one statistic of all layers, in host memory and double precision."""
    return torch.stack([noted(ranking, name) for ranking in rankings], -1)


@once
def noted(ranking: Ranking, name: str) -> Float[Tensor, " B"]:
    """Return one statistic of one layer, in host memory and double precision."""
    if name not in ranking.stats:
        has = ", ".join(map(repr, ranking.stats)) or "none"
        raise MethodError(
            f"the budget needs the statistic {name!r}, but the score gives {has}; "
            "wrap the score in Described(...), or choose another budget"
        )
    return ranking.stats[name].cpu().double()


def share(values: Float[Tensor, "B N"], norm: str, negative: str) -> Float[Tensor, "B N"]:
    """Return one statistic as shares of its sum over layers; equal shares where all are zero."""
    values = coarse(values)
    lowest, highest = values.amin(-1, keepdim=True), values.amax(-1, keepdim=True)
    flat = highest == lowest
    if norm == "softmax_z":
        off = (values - values.mean(-1, keepdim=True)).masked_fill(flat, 0)
        std = off.square().mean(-1, keepdim=True).sqrt()
        return (off / std.masked_fill(flat, 1)).softmax(-1)
    values = values.clamp(min=0) if negative == "clamp0" else values - lowest.clamp(max=0)
    if norm == "minmax":
        # The division by the range cancels in the division by the sum.
        values = (values - values.amin(-1, keepdim=True)).masked_fill(flat, 0)
    return parts(values)


def parts(values: Float[Tensor, "B N"]) -> Float[Tensor, "B N"]:
    """Return numbers of at least 0 as parts of their sum; equal parts where all are zero."""
    total = values.sum(-1, keepdim=True)
    return torch.where(total > 0, values / total.masked_fill(total == 0, 1), 1 / values.shape[-1])


def rays(values: Float[Tensor, "B m"], norm: str, negative: str) -> list[Float[Tensor, "B m"]]:
    """Return numbers of which `share` of all layers is a mixture in the known ones; sums are 1.

    What is subtracted is the lowest value of all layers, or nothing: where it is yet to come, it is
    the known lowest less an unknown number.
    """
    lowest = values.amin(-1, keepdim=True)
    if negative == "clamp0":
        values = values.clamp(min=0)
        found = [values] if norm == "sum" else [values - values.amin(-1, keepdim=True), values]
    else:
        least = lowest.clamp(max=0) if norm == "sum" else lowest
        found = [values - least, torch.ones_like(values)]
    return [parts(ray) for ray in found]


def largest(
    values: Float[Tensor, "B m"], norm: str, negative: str, layers: int
) -> Float[Tensor, "B m"]:
    """Return the largest shares that the known layers can have of a statistic over all."""
    if norm != "softmax_z":
        return torch.stack(rays(values, norm, negative)).amax(0)
    below, steep = slopes(values, layers)
    weights = (-steep[..., None] * below[:, None]).exp()
    return (weights[:, :-1] / weights[:, 1:].sum(-1, keepdim=True)).amax(-2)


def coarse(values: Float[Tensor, "B N"]) -> Float[Tensor, "B N"]:
    """Return the values rounded to twenty binary digits.

    Sums of float32 differ in the last digits from device to device, and alone from in a batch. What
    is equal but for that must be equal here, or noise decides ties, and is stretched by a norm.
    """
    mantissa, exponent = torch.frexp(values.double())
    return torch.ldexp((mantissa * 2**BITS).round() / 2**BITS, exponent)

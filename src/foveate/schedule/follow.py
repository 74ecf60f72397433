"""How stored tokens are ranked while decoding: one small rule per idea."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from foveate.kernels.column_stats import column_stats
from foveate.option import Choice, Count, Share, check_choice, check_count, check_share
from foveate.types import GOES_FIRST, GOES_LAST, PINNED, Float, Int, Ranking, Stored

__all__ = ["Accumulated", "LatestRow", "OldestFirst", "Steady"]


@dataclass(frozen=True, slots=True)
class OldestFirst:
    """The oldest goes first (StreamingLLM, arXiv 2309.17453).

    With a `distance` the first `planned + distance` of the tokens that the prompt kept never go
    (`planned // 2`, if that is none), as Elastic Cache (arXiv 2407.18121) and PrefixKV (arXiv
    2412.03409) remove what stands at a fixed index.
    """

    distance: int | None = None

    def __call__(self, stored: Stored, tiers: Int[Tensor, "B H L"]) -> Ranking:
        """Return the ranking by position."""
        scores = stored.positions.float()
        if self.distance is not None:
            lasting = stored.planned + self.distance
            lasting = torch.where(lasting < 1, stored.planned // 2, lasting)[..., None]
            place = (stored.positions >= 0).cumsum(-1) - 1
            spared = (place < lasting) & (tiers == GOES_FIRST)
            tiers = tiers.masked_fill(spared, GOES_LAST)
        return Ranking(scores, tiers, stored.layer)


@dataclass(frozen=True, slots=True)
class Accumulated:
    """What got the least attention from all rows so far goes first (H2O, arXiv 2306.14048).

    `sum[j] += mean over the group of p[i, j]`; with `statistic="rate"` it is divided by the number
    of rows that saw the token.
    """

    statistic: Choice = "sum"

    def __post_init__(self) -> None:
        check_choice("statistic", self.statistic, ("sum", "rate"))

    def __call__(self, stored: Stored, tiers: Int[Tensor, "B H L"]) -> Ranking:
        """Return the ranking by accumulated attention."""
        total = of(stored, "sum") + attention(stored).unflatten(1, (-1, stored.groups)).mean(2)
        count = of(stored, "count") + lookers(stored)
        scores = total / count.clamp(min=1) if self.statistic == "rate" else total
        return Ranking(scores, tiers, stored.layer, state={"sum": total, "count": count})


@dataclass(frozen=True, slots=True)
class LatestRow:
    """What the newest row looks at least goes first (TOVA, arXiv 2401.06104; CAKE, 2503.12491).

    `heads="shared"` averages over all query heads, "per_kv_head" over those of a group. A `kernel`
    above 1 averages over that many neighbouring slots, zeros behind the ends included.
    """

    heads: Choice = "shared"
    kernel: Count = 1

    def __post_init__(self) -> None:
        check_choice("heads", self.heads, ("shared", "per_kv_head"))
        check_count("kernel", self.kernel, least=1)

    def __call__(self, stored: Stored, tiers: Int[Tensor, "B H L"]) -> Ranking:
        """Return the ranking by the attention of the newest row."""
        newest = (stored.rows == stored.rows.amax(-1, keepdim=True)) & (stored.rows >= 0)
        scores = attention(stored, newest.float())
        if self.heads == "shared":
            scores = scores.mean(1, keepdim=True).expand(-1, stored.keys.shape[1], -1)
        else:
            scores = scores.unflatten(1, (-1, stored.groups)).mean(2)
        if self.kernel > 1:
            scores = torch.nn.functional.avg_pool1d(scores, self.kernel, 1, self.kernel // 2)
        return Ranking(scores, tiers, stored.layer)


@dataclass(frozen=True, slots=True)
class Steady:
    """Of tokens with steady attention the one with the least goes first (RoCo, arXiv 2402.06262).

    Of what is stored only the `room - floor(spread * room)` tokens whose attention has the smallest
    standard deviation over the rows that saw them may go, by their mean; pinned ones count as
    unsteady.
    """

    spread: Share = 0.3

    def __post_init__(self) -> None:
        check_share("spread", self.spread)

    def __call__(self, stored: Stored, tiers: Int[Tensor, "B H L"]) -> Ranking:
        """Return the ranking by mean attention, unsteady tokens behind."""
        total = of(stored, "sum") + attention(stored, group=True)
        square = of(stored, "square") + attention(stored, group=True, power=2)
        count = of(stored, "count") + lookers(stored)
        mean = total / count.clamp(min=1)
        spread = (square / count.clamp(min=1) - mean.square()).clamp(min=0).sqrt()
        spread = spread.masked_fill(tiers == PINNED, torch.inf)
        order = spread.masked_fill(tiers < 0, -torch.inf).argsort(dim=-1, stable=True)
        place = torch.empty_like(order)
        place.scatter_(
            -1, order, torch.arange(order.shape[-1], device=order.device).expand_as(order)
        )
        place = place - (tiers < 0).sum(-1, keepdim=True)
        steady = stored.room - (stored.room * self.spread + 1e-6).floor().long()
        unsteady = (place >= steady[..., None]) & (tiers == GOES_FIRST)
        tiers = tiers.masked_fill(unsteady, GOES_LAST)
        state = {"sum": total, "square": square, "count": count}
        return Ranking(mean, tiers, stored.layer, state=state)


def attention(
    stored: Stored,
    weights: Float[Tensor, "B R"] | None = None,
    *,
    power: float = 1,
    group: bool = False,
) -> Float[Tensor, "B X L"]:
    """Return what the new rows together give every slot, X being Hq, or H for group means."""
    return column_stats(
        stored.queries,
        stored.keys,
        scaling=stored.scaling,
        rows=stored.rows,
        positions=stored.positions,
        weights=weights,
        power=power,
        group=group,
    )


def lookers(stored: Stored) -> Float[Tensor, "B H L"]:
    """Return how many of the new rows see each slot."""
    rows = stored.rows[:, None, None, :]
    sees = (rows >= 0) & (stored.positions[..., None] >= 0) & (stored.positions[..., None] <= rows)
    return sees.float().sum(-1)


def of(stored: Stored, name: str) -> Float[Tensor, "B H L"]:
    """Return one number per slot from before, zeros if there is none."""
    return stored.state.get(name, torch.zeros_like(stored.positions, dtype=torch.float32))

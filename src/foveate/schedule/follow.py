"""How stored tokens are ranked while decoding: one small rule per idea."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from foveate.errors import MethodError
from foveate.group import all_heads
from foveate.kernels.column_stats import column_stats
from foveate.line import places
from foveate.option import Choice, Count, Share, check_choice, check_count, check_share
from foveate.score.fluctuation import deviation
from foveate.types import (
    GOES_FIRST,
    GOES_LAST,
    PAD,
    PINNED,
    STAYS,
    Bool,
    Float,
    Int,
    Ranking,
    Stored,
)

__all__ = ["Accumulated", "LatestRow", "OldestFirst", "Steady"]


@dataclass(frozen=True, slots=True)
class OldestFirst:
    """The oldest goes first (StreamingLLM, arXiv 2309.17453).

    With a `distance` the first `planned + distance` of the tokens that the prompt kept never go
    (`planned // 2`, if that is none), as Elastic Cache (arXiv 2407.18121) and PrefixKV (arXiv
    2412.03409) remove what stands at a fixed index.
    """

    distance: int | None = None
    reads: ClassVar[str] = "none"

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
    reads: ClassVar[str] = "all"

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
    above 1 averages over that many neighbouring slots, zeros behind the ends included. `rows="all"`
    takes the mean over all rows since the last look instead of the newest one.
    """

    heads: Choice = "shared"
    kernel: Count = 1
    rows: Choice = "newest"

    def __post_init__(self) -> None:
        check_choice("heads", self.heads, ("shared", "per_kv_head"))
        check_choice("rows", self.rows, ("newest", "all"))
        check_count("kernel", self.kernel, least=1)
        if self.kernel % 2 == 0:
            raise MethodError(f"kernel={self.kernel} has no middle; give an odd number")

    @property
    def reads(self) -> str:
        """Return which of the new query rows count."""
        return self.rows

    def __call__(self, stored: Stored, tiers: Int[Tensor, "B H L"]) -> Ranking:
        """Return the ranking by the attention of the newest row."""
        scores = attention(stored)
        if self.heads == "shared":
            scores = all_heads(scores, stored.group).mean(1, keepdim=True)
            scores = scores.expand(-1, stored.keys.shape[1], -1)
        else:
            scores = scores.unflatten(1, (-1, stored.groups)).mean(2)
        if self.kernel > 1:
            scores = smoothed(scores, stored.positions >= 0, self.kernel)
        return Ranking(scores, tiers, stored.layer)


@dataclass(frozen=True, slots=True)
class Steady:
    """Of tokens with steady attention the one with the least goes first (RoCo, arXiv 2402.06262).

    Of what is stored only the `room - floor(spread * room)` tokens whose attention has the smallest
    standard deviation over the rows that saw them may go, by their mean; pinned ones count as
    unsteady.
    """

    spread: Share = 0.3
    reads: ClassVar[str] = "all"

    def __post_init__(self) -> None:
        check_share("spread", self.spread)

    def __call__(self, stored: Stored, tiers: Int[Tensor, "B H L"]) -> Ranking:
        """Return the ranking by mean attention, unsteady tokens behind."""
        total = of(stored, "sum") + attention(stored, group=True)
        square = of(stored, "square") + attention(stored, group=True, power=2)
        count = of(stored, "count") + lookers(stored)
        counted = (tiers != PAD) & (tiers != STAYS)
        order = torch.where(tiers == PINNED, PINNED, GOES_FIRST).masked_fill(~counted, PAD)
        steady = stored.room - (stored.room * self.spread + 1e-6).floor().long()
        unsteady = places(deviation(total, square, count), order, None) < (
            counted.sum(-1) - steady
        ).unsqueeze(-1)
        tiers = tiers.masked_fill(unsteady & (tiers == GOES_FIRST), GOES_LAST)
        state = {"sum": total, "square": square, "count": count}
        return Ranking(total / count.clamp(min=1), tiers, stored.layer, state=state)


def smoothed(
    scores: Float[Tensor, "B H L"], filled: Bool[Tensor, "B H L"], kernel: int
) -> Float[Tensor, "B H L"]:
    """Return averages over `kernel` neighbouring filled slots; the empty ones lie nowhere."""
    order = filled.int().argsort(dim=-1, stable=True)  # what is empty first, at one end
    line = scores.masked_fill(~filled, 0).gather(-1, order)
    line = torch.nn.functional.avg_pool1d(line, kernel, 1, kernel // 2)
    return torch.empty_like(line).scatter_(-1, order, line)


def attention(stored: Stored, *, power: float = 1, group: bool = False) -> Float[Tensor, "B X L"]:
    """Return what the new rows together give every slot, X being Hq, or H for group means."""
    return column_stats(
        stored.queries,
        stored.keys,
        scaling=stored.scaling,
        rows=stored.rows,
        positions=stored.positions,
        power=power,
        group=group,
    )


def lookers(stored: Stored) -> Float[Tensor, "B H L"]:
    """Return how many of the new rows see each slot."""
    ascending = stored.rows.sort(-1).values
    before = torch.searchsorted(ascending, stored.positions.clamp(min=0).flatten(1))
    seen = (stored.rows.shape[1] - before).view_as(stored.positions)
    return seen.masked_fill(stored.positions < 0, 0).float()


def of(stored: Stored, name: str) -> Float[Tensor, "B H L"]:
    """Return one number per slot from before, zeros if there is none."""
    return stored.state.get(name, torch.zeros_like(stored.positions, dtype=torch.float32))

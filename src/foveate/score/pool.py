"""Scores smoothed over neighbours, where neighbours are neighbours."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from foveate.group import all_heads
from foveate.method import Score
from foveate.option import Choice, Count, check_choice, check_odd
from foveate.score.patches import patches
from foveate.types import Bool, Float, Int, Observation, Ranking, TokenKinds

__all__ = ["Pooled", "outside", "pooled", "segments"]

HOW = ("avg", "max")
OVER = ("rows", "spans", "sequence")


@dataclass(frozen=True, slots=True)
class Pooled:
    """The same ranking, every score being the mean or maximum of the `kernel` scores around it.

    Pooled are the tokens that may go or do not observe, in their order. `over="sequence"` takes
    them as one line, with zeros behind its ends for the mean. "spans" never reaches over a border
    between text and image or between two images, and "rows" nor over a row of an image whose grid
    is known; there the mean is over the neighbours that exist.
    """

    score: Score
    kernel: Count = 5
    how: Choice = "avg"
    over: Choice = "rows"

    def __post_init__(self) -> None:
        check_odd("kernel", self.kernel)
        check_choice("how", self.how, HOW)
        check_choice("over", self.over, OVER)

    def rows(self, kinds: TokenKinds) -> Bool[Tensor, "B T"] | None:
        """Return the rows that the score reads."""
        return self.score.rows(kinds)

    def __call__(self, observation: Observation, tiers: Int[Tensor, "B T"]) -> Ranking:
        """Return the ranking with pooled scores."""
        ranking = self.score(observation, tiers)
        kinds = observation.kinds
        going = ranking.candidates
        going = going if going.ndim == 2 else all_heads(going, observation.group)
        columns = outside(kinds, self.rows(kinds), going)
        same = torch.zeros_like(kinds.span) if self.over == "sequence" else segments(kinds)
        if self.over == "rows":
            same = by_rows(kinds, same)
        scores = ranking.scores
        alike = not scores.stride(1)  # heads that rank alike are pooled once
        smooth = pooled(
            scores[:, :1] if alike else scores,
            columns,
            same,
            self.kernel,
            self.how,
            padded=self.over == "sequence",
        )
        return replace(ranking, scores=smooth.expand_as(scores))


def outside(
    kinds: TokenKinds,
    observing: Bool[Tensor, "B T"] | None,
    candidates: Bool[Tensor, "B T"] | Bool[Tensor, "B H T"],
) -> Bool[Tensor, "B T"]:
    """Return the tokens that may go or do not observe."""
    columns = kinds.valid if observing is None else kinds.valid & ~observing
    return columns | (candidates if candidates.ndim == 2 else candidates.any(1))


def segments(kinds: TokenKinds) -> Int[Tensor, "B T"]:
    """Return a number for every run of text, or of one image; pads are passed over."""
    # Text has span -1, so that the span alone tells text and the images apart.
    valid = kinds.valid
    place = torch.arange(valid.shape[-1], device=valid.device).expand_as(kinds.span)
    before = torch.where(valid, place, -1).cummax(-1).values
    before = torch.nn.functional.pad(before, (1, 0), value=-1)[:, :-1]
    changed = kinds.span != kinds.span.gather(-1, before.clamp(min=0))
    return (valid & ((before < 0) | changed)).cumsum(-1)


def by_rows(kinds: TokenKinds, same: Int[Tensor, "B T"]) -> Int[Tensor, "B T"]:
    """Return the numbers of segments that end with every row of an image too."""
    if not any(kinds.grids):
        return same
    lie = patches(kinds)  # an image of unknown grid is one row
    row = torch.where(kinds.visual, lie.within // lie.grid[..., 2], 0)
    return same * (same.shape[-1] + 1) + row


def pooled(
    scores: Float[Tensor, "B H T"],
    columns: Bool[Tensor, "B T"],
    same: Int[Tensor, "B T"],
    kernel: int,
    how: str,
    padded: bool,
) -> Float[Tensor, "B H T"]:
    """Return the mean or maximum over `kernel` neighbours among the columns of the same segment.

    Neighbours are counted over the columns alone; others keep their scores. `padded` divides a mean
    by `kernel`, whether or not there are as many neighbours.
    """
    order = (~columns).int().argsort(dim=-1, stable=True)  # the columns first, in their order
    wide = order[:, None].expand_as(scores)
    there = columns.gather(-1, order)
    line = scores.gather(-1, wide).masked_fill(~there[:, None], 0)
    number = same.gather(-1, order).masked_fill(~there, -1)
    T = scores.shape[-1]
    half = min(kernel // 2, T)
    number = torch.nn.functional.pad(number, (half, half), value=-2)
    line = torch.nn.functional.pad(line, (half, half))
    own = number[:, half : half + T]
    out = torch.zeros_like(scores) if how == "avg" else torch.full_like(scores, -torch.inf)
    count = torch.zeros_like(own)
    for shift in range(2 * half + 1):
        near = number[:, shift : shift + T] == own
        count = count + near
        part = line[..., shift : shift + T]
        if how == "avg":
            out = out + part.masked_fill(~near[:, None], 0)
        else:
            out = torch.maximum(out, part.masked_fill(~near[:, None], -torch.inf))
    if how == "avg":
        out = out / (float(kernel) if padded else count[:, None])
    out = torch.where(there[:, None], out, scores.gather(-1, wide))
    return torch.empty_like(scores).scatter_(-1, wide, out)

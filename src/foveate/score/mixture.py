"""What another score finds important, mixed with what is unlike the rest of its head."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from foveate.calibration.tables import Table
from foveate.errors import MethodError
from foveate.group import own_heads
from foveate.method import Fitted, Score
from foveate.option import Choice, check_choice
from foveate.score.directions import along, unit_mean
from foveate.score.norms import lengths
from foveate.types import Bool, Float, Int, Observation, Ranking, TokenKinds

__all__ = ["Mixed", "redundancy", "stretched"]

IMPORTANCE = ("attention+vnorm", "attention", "vnorm", "knorm", "attention+knorm", "none")
DIVERSITY = ("keys", "none")
MIX = ("head", "offline", "half", "sum")
SCALE = ("code", "paper")
EPSILON = 1e-8
FLAT = 1e-6  # of the largest value: a smaller range is rounding


@dataclass(frozen=True, slots=True)
class Mixed:
    """`r * D + (1 - r) * I` per key-value head, of what may go (MixKV, arXiv 2510.20707).

    I adds up what `importance` names: the scores A inside ("attention"), lengths of values |v|
    ("vnorm"), lengths of keys -|k| ("knorm"). D is `-cos(k, mu) |mu|`, mu being the mean of all
    unit keys of the row. All but A are stretched to 0..1 and then scaled to the mean of A; D, with
    `scale="paper"`, to the mean of I. `mix`: r is the mean cosine of two different keys of the head
    ("head"), that of a `table` ("offline"), or 0.5 ("half"); "sum" is `D + I`. With
    `diversity="none"` I alone ranks, with `importance="none"` D alone. Budgets are drawn from A.
    """

    score: Score
    importance: Choice = "attention+vnorm"
    diversity: Choice = "keys"
    mix: Choice = "head"
    table: Table | None = None
    scale: Choice = "code"

    def __post_init__(self) -> None:
        check_choice("importance", self.importance, IMPORTANCE)
        check_choice("diversity", self.diversity, DIVERSITY)
        check_choice("mix", self.mix, MIX)
        check_choice("scale", self.scale, SCALE)
        if self.importance == self.diversity == "none":
            raise MethodError(
                "importance='none' and diversity='none' leave nothing to rank by; give one of them"
            )
        if (self.mix == "offline") != (self.table is not None):
            raise MethodError(
                f"mix={self.mix!r} came with{'' if self.table else 'out'} a table; mix='offline' "
                "needs the path of one that `foveate calibrate redundancy` wrote, no other mix "
                "reads one"
            )

    def rows(self, kinds: TokenKinds) -> Bool[Tensor, "B T"] | None:
        """Return the rows that the score reads."""
        return self.score.rows(kinds)

    def check(self, model_name: str | None, layers: int, query_heads: int, kv_heads: int) -> None:
        """Raise `MethodError` if the table, or one of the score inside, is of another model."""
        for part in (self.table, self.score):
            if isinstance(part, Fitted):
                part.check(model_name, layers, query_heads, kv_heads)

    def __call__(self, observation: Observation, tiers: Int[Tensor, "B T"]) -> Ranking:
        """Return the ranking with mixed scores, and the score's own as mass."""
        ranking = self.score(observation, tiers)
        own, going = ranking.scores, ranking.candidates
        going = going if going.ndim == 3 else going[:, None]
        worth = self.important(observation, own, going)
        if self.diversity == "keys":
            mean = unit_mean(observation.keys, observation.kinds.valid)
            target = own if worth is None or self.scale == "code" else worth
            apart = -along(observation.keys, mean)
            apart = stretched(apart, going, mean_size(target, going))
            worth = apart if worth is None else self.together(apart, worth, mean, observation)
        assert worth is not None
        scores = torch.where(going, worth, own)
        return replace(ranking, scores=scores, mass=own if ranking.mass is None else ranking.mass)

    def important(
        self, observation: Observation, own: Float[Tensor, "B H T"], going: Bool[Tensor, "B x T"]
    ) -> Float[Tensor, "B H T"] | None:
        """Return how important every token is, or None if that is not asked."""
        terms = [own] if self.importance.startswith("attention") else []
        target, valid = mean_size(own, going), observation.kinds.valid
        if self.importance.endswith("vnorm"):
            terms.append(stretched(lengths(observation.values, valid), going, target))
        if self.importance.endswith("knorm"):
            terms.append(stretched(-lengths(observation.keys, valid), going, target))
        return sum(terms[1:], start=terms[0]) if terms else None

    def together(
        self,
        apart: Float[Tensor, "B H T"],
        worth: Float[Tensor, "B H T"],
        mean: Float[Tensor, "B H D"],
        observation: Observation,
    ) -> Float[Tensor, "B H T"]:
        """Return diversity and importance, mixed."""
        if self.mix == "sum":
            return apart + worth
        r = torch.full_like(mean[..., 0], 0.5)
        if self.mix == "head":
            r = redundancy(mean, observation.kinds.valid.sum(-1))
        elif self.table is not None:
            group, H = observation.group, mean.shape[1]
            H = H if group is None else H * group.size
            numbers = r.new_tensor(measured(self.table, observation.layer, H))
            r = own_heads(numbers, group).expand_as(r)
        return r[..., None] * apart + (1 - r)[..., None] * worth


def redundancy(mean: Float[Tensor, "B H D"], count: Int[Tensor, " B"]) -> Float[Tensor, "B H"]:
    """Return the mean cosine of two different keys, from the mean of `count` unit keys."""
    n = count[:, None]
    r = (n * mean.square().sum(-1) - 1) / (n - 1).clamp(min=1)
    return r.masked_fill(n < 2, 0)


def measured(table: Table, layer: int, H: int) -> tuple[float, ...]:
    """Return the numbers of one layer's heads; `MethodError` where the table has no such layer."""
    if layer >= table.layers or table.kv_heads != H:
        raise MethodError(
            f"the {table.kind} table of {table.model} has {table.layers} layers of "
            f"{table.kv_heads} key-value heads, and layer {layer} with {H} heads is ranked here; "
            "make one for this model with `foveate calibrate redundancy`"
        )
    return table.per_kv_head[layer]


def mean_size(values: Float[Tensor, "B H T"], among: Bool[Tensor, "B x T"]) -> Tensor:
    """Return the mean absolute value of every head [B, H, 1]; that is the mean of attention."""
    total = values.abs().masked_fill(~among, 0).sum(-1, keepdim=True)
    return total / among.sum(-1, keepdim=True).clamp(min=1)


def stretched(
    values: Float[Tensor, "B H T"], among: Bool[Tensor, "B x T"], target: Float[Tensor, "B H 1"]
) -> Float[Tensor, "B H T"]:
    """Return the values stretched to 0..1 in every head, and then scaled to the mean `target`.

    Zeros, where all are equal.
    """
    low = values.masked_fill(~among, torch.inf).amin(-1, keepdim=True)
    high = values.masked_fill(~among, -torch.inf).amax(-1, keepdim=True)
    flat = ~(high - low > FLAT * torch.maximum(high.abs(), low.abs())) | (high < low)
    unit = ((values - low) / (high - low + EPSILON)).masked_fill(~among | flat, 0)
    return unit * (target / (mean_size(unit, among) + EPSILON))

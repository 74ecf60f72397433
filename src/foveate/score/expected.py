"""What queries that are yet to come are going to look at, if they are like those of the prompt."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from foveate.errors import InputError
from foveate.option import Count, Flag, Number, check_count, check_flag, check_number
from foveate.score.directions import tiles
from foveate.score.norms import lengths
from foveate.score.window import AllText, observed
from foveate.types import (
    GOES_FIRST,
    GOES_LAST,
    Bool,
    Float,
    Int,
    Observation,
    Ranking,
    TokenKinds,
)

__all__ = ["Expected"]


@dataclass(frozen=True, slots=True)
class Expected:
    """`(mean over the group of softmax_j(z)[j] + epsilon) * |v[j]|` (arXiv 2510.00636).

    `z[j] = s m . k[j] + s^2 k[j] . C k[j] / 2` with the scaling s, m the mean and C the covariance
    of queries of the next `future` positions: the row's own, unrotated and then rotated by what is
    rotation on average there. Those at the first `sinks` tokens are left out, if there are others.
    Without `covariance` the second term is missing, without `values` the factor |v|. The softmax is
    over the candidates. Where images have positions in a grid, the text behind the last image
    observes; without any, its last 32 tokens do, as if they stood at the end (the statistic
    "fallback" is then 1).
    """

    future: Count = 512
    sinks: Count = 4
    covariance: Flag = True
    values: Flag = True
    epsilon: Number = 0.0

    def __post_init__(self) -> None:
        check_count("future", self.future, least=1)
        check_count("sinks", self.sinks)
        check_flag("covariance", self.covariance)
        check_flag("values", self.values)
        check_number("epsilon", self.epsilon)

    def rows(self, kinds: TokenKinds) -> Bool[Tensor, "B T"]:
        """Return every token: which ones are read depends on the model's rotation."""
        return kinds.valid

    def __call__(self, observation: Observation, tiers: Int[Tensor, "B T"]) -> Ranking:
        """Return the ranking of one layer."""
        frequencies = frequencies_of(observation)
        members, fallback = self.members(observation)
        observes = observed(observation, members, fallback).at(observation.rows)[:, 0]
        place = observation.kinds.valid.cumsum(-1)
        back = place[:, -1:] - place.gather(-1, observation.rows.clamp(min=0))
        if grid_positions(observation):
            seen = observation.kinds.visual.gather(-1, observation.rows.clamp(min=0))
            back = back.masked_fill(seen, 0)
        turns = angles(back, frequencies)[:, None]
        mean, spread = moments(observation.queries, observes, turns, self.covariance)
        ahead = angles(torch.arange(1, self.future + 1, device=back.device), frequencies)
        cosine, sine = ahead.cos().mean(0), ahead.sin().mean(0)
        mean = turned(mean, cosine, sine)
        # From both sides: what turns the rows of a matrix turns its columns once it is transposed.
        spread = turned(turned(spread, cosine, sine).transpose(-1, -2), cosine, sine)
        logits = expectation(observation, mean.float(), spread.float())
        candidates = ((tiers == GOES_FIRST) | (tiers == GOES_LAST))[:, None, None]
        seen = logits.masked_fill(~candidates, -torch.inf).softmax(-1).masked_fill(~candidates, 0)
        scores = seen.mean(2) + self.epsilon
        if self.values:
            scores = scores * lengths(observation.values, observation.kinds.valid)
        stats = {"fallback": (fallback & candidates.any(-1)[:, 0, 0]).float()}
        return Ranking(scores, tiers, observation.layer, stats)

    def members(self, observation: Observation) -> tuple[Bool[Tensor, "B T"], Bool[Tensor, " B"]]:
        """Return the tokens whose queries are read, and where they are a stand-in."""
        kinds = observation.kinds
        members, fallback = kinds.valid, torch.zeros_like(kinds.valid[:, 0])
        if grid_positions(observation):
            chosen = AllText()(observation)
            members, fallback = chosen.members[:, 0], chosen.fallback
        sinks = min(self.sinks, members.shape[-1])
        later = members & (kinds.valid.cumsum(-1) > sinks)
        return torch.where(later.any(-1, keepdim=True), later, members), fallback


def grid_positions(observation: Observation) -> bool:
    """Return whether images have positions in time, height and width."""
    return observation.rotation is not None and observation.rotation.grid


def frequencies_of(observation: Observation) -> Float[Tensor, " d"]:
    """Return how fast each pair of dimensions turns, or raise `InputError` where that is unknown.

    Double precision, where the device has it.
    """
    rotation, D = observation.rotation, observation.queries.shape[-1]
    if rotation is None or rotation.frequencies is None:
        found = "nothing is known about the rotation"
    elif 2 * len(rotation.frequencies) > D:
        found = (
            f"the rotation has frequencies {tuple(rotation.frequencies.shape)} for queries of "
            f"width {D}"
        )
    else:
        device = observation.queries.device
        return rotation.frequencies.to(device, exact(device))
    raise InputError(
        f"expected attention has to unrotate queries, and in layer {observation.layer} {found}; "
        "give Observation(..., rotation=foveate.types.Rotation(frequencies)) with one frequency "
        "for each pair of dimensions d and d + D/2 (zeros: no rotation), or choose a method that "
        "does not look ahead"
    )


def exact(device: torch.device) -> torch.dtype:
    """Return double precision, or float32 on a device without."""
    return torch.float32 if device.type == "mps" else torch.float64


def angles(
    steps: Int[Tensor, "*shape"], frequencies: Float[Tensor, " d"]
) -> Float[Tensor, "*shape d"]:
    """Return how far every pair of dimensions turns in so many positions."""
    return steps[..., None].to(frequencies.dtype) * frequencies


def turned(
    x: Float[Tensor, "*shape D"], cosine: Float[Tensor, "*other d"], sine: Float[Tensor, "*other d"]
) -> Float[Tensor, "*shape D"]:
    """Return x with dimensions i and i + d turned; what lies behind 2d stays."""
    d = cosine.shape[-1]
    first, second, rest = x[..., :d], x[..., d : 2 * d], x[..., 2 * d :]
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine, rest], dim=-1)


def moments(
    queries: Float[Tensor, "B Hq R D"],
    observes: Bool[Tensor, "B R"],
    turns: Float[Tensor, "B 1 R d"],
    covariance: bool,
) -> tuple[Float[Tensor, "B Hq D"], Float[Tensor, "B Hq D D"]]:
    """Return mean and covariance of the queries that observe, each turned by its own angles.

    Without `covariance` zeros are returned for it.
    """
    B, Hq, _, D = queries.shape
    used = observes[:, None, :, None]
    count = used.sum(2, keepdim=True).clamp(min=1)
    mean = torch.zeros(B, Hq, 1, D, device=queries.device, dtype=turns.dtype)
    spread = mean.new_zeros(B, Hq, D, D)
    for at in tiles(queries):
        mean += turned_part(queries, turns, at).masked_fill(~used[:, :, at], 0).sum(2, True)
    mean /= count
    for at in tiles(queries) if covariance else ():
        off = turned_part(queries, turns, at) - mean.float()
        off = off.masked_fill(~used[:, :, at], 0)
        spread += off.transpose(-1, -2) @ off
    return mean[:, :, 0], spread / count


def turned_part(
    queries: Float[Tensor, "B Hq R D"], turns: Float[Tensor, "B 1 R d"], at: slice
) -> Float[Tensor, "B Hq r D"]:
    """Return some of the rows, turned, in float32."""
    part = turns[:, :, at]
    return turned(queries[:, :, at].float(), part.cos().float(), part.sin().float())


def expectation(
    observation: Observation, mean: Float[Tensor, "B Hq D"], spread: Float[Tensor, "B Hq D D"]
) -> Float[Tensor, "B H G T"]:
    """Return `s m . k[j] + s^2 k[j] . C k[j] / 2` for every key and query head."""
    keys, s = observation.keys, observation.scaling
    mean, spread = (x.unflatten(1, (keys.shape[1], -1)) for x in (mean, spread))
    parts = []
    for at in tiles(keys, observation.groups):
        key = keys[:, :, None, at].float()
        parts.append(((key @ (spread * (s * s / 2)) + s * mean[..., None, :]) * key).sum(-1))
    return torch.cat(parts, -1)

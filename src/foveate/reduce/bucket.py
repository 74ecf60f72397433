"""What does not stay is averaged into the kept token beside it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from foveate.method import Scope
from foveate.reduce.evict import pack
from foveate.reduce.fold import folded, received
from foveate.reduce.match import nearest_position
from foveate.types import GOES_FIRST, GOES_LAST, Bool, Float, LayerKV, Observation

__all__ = ["Buckets"]


@dataclass(frozen=True, slots=True)
class Buckets:
    """Every dropped token goes to the nearest kept one by position, the earlier one of two.

    A kept token becomes the plain mean of itself and all it receives, key and value. Tokens that
    `scope` protects neither give nor receive.
    """

    scope: Scope

    def __call__(
        self,
        observation: Observation,
        scores: Float[Tensor, "B H T"],
        keep: Bool[Tensor, "B H T"],
    ) -> LayerKV:
        """Return the kept keys and values, each the mean of its bucket."""
        kinds = observation.kinds
        tiers = self.scope.tiers(kinds)[:, None]
        candidates = (tiers == GOES_FIRST) | (tiers == GOES_LAST)
        kept = keep & candidates
        giving = candidates & ~keep & kept.any(-1, keepdim=True)
        target = nearest_position(kept, kinds.valid)
        number = received(target, giving)
        return pack(
            folded(observation.keys, target, giving, number),
            folded(observation.values, target, giving, number),
            keep,
        )

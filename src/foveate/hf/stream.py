"""A prompt that streams: layers let go of tokens before the last one is ranked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from foveate.cache.ledger import Ledger
from foveate.cache.segments import Segments
from foveate.line import Line
from foveate.method import Bounded, Evicting, Method
from foveate.types import Bool, LayerKV, Plan, Ranking

if TYPE_CHECKING:
    from foveate.hf.layer import CompressedLayer

__all__ = ["Stream", "holds_on", "narrowed", "packed"]

MERGES = "what does not stay is merged into what does"
UNBOUNDED = "the budget knows no bounds before that"


class Stream:
    """The pass that completes a prompt, in which layers are trimmed as others are ranked.

    It lives as long as the pass. `layers` are those that are going to be ranked, in order.
    """

    def __init__(self, method: Method, layers: Sequence[CompressedLayer], stop: int) -> None:
        self.stop = stop
        self.layers = {layer.index: layer for layer in layers}
        self.ledger = Ledger(method.budget, list(self.layers))

    @torch.no_grad()
    def ranked(self, ranking: Ranking) -> None:
        """Trim what the ranking of one more layer allows to trim."""
        for index in self.ledger.add(ranking):
            self.layers[index].trim(self.ledger.keeps(index), self.stop)

    @property
    def held_whole(self) -> str | None:
        """Return why nothing was trimmed before the last layer, if it was for want of bounds."""
        return UNBOUNDED if self.ledger.blind else None

    def close(self, layers: Sequence[int]) -> list[Line]:
        """Return the rankings in line for the choice, which is between these layers."""
        lines = self.ledger.close()
        assert [line.ranking.layer for line in lines] == list(layers)
        return lines

    def check(self, plan: Plan) -> None:
        """Raise `UnsupportedModel` if the plan keeps more of a layer than it was trimmed for."""
        self.ledger.check([explained["budget"] for explained in plan.explain])


def holds_on(method: Method) -> str | None:
    """Return why a prompt is held whole until all layers are ranked, or None where it is not."""
    if not (isinstance(method.reduce, Evicting) and method.reduce.evicts):
        return MERGES
    if not isinstance(method.budget, Bounded):
        return UNBOUNDED
    return None


def narrowed(held: Segments, keep: Bool[Tensor, "B H T"]) -> Segments:
    """Return the entries of the positions that are kept."""
    runs = torch.arange(keep.shape[0] * keep.shape[1], device=keep.device)
    runs = runs.repeat_interleave(held.counts, output_size=len(held.positions))
    return held.filtered(keep.reshape(-1).index_select(0, runs * keep.shape[-1] + held.positions))


def packed(kept: Segments) -> LayerKV:
    """Return the entries right-aligned, as `Evict` packs them."""
    slots = kept.slots()
    if len(kept.keys) == slots.numel():  # nothing is empty, and nothing is copied
        B, H, P = slots.shape
        keys, values = (x.view(B, H, P, x.shape[-1]) for x in (kept.keys, kept.values))
        return LayerKV(keys, values, kept.positions.view(B, H, P).long())
    keys, values = kept.padded(kept.keys, slots), kept.padded(kept.values, slots)
    return LayerKV(keys, values, kept.padded(kept.positions, slots, -1).long())

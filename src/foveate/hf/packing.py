"""The end of a prompt: what its layers have ranked is decided, packed, and stored for decoding."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from foveate.cache.segments import Segments
from foveate.errors import UnsupportedModel
from foveate.group import all_heads
from foveate.hf.stream import narrowed, packed
from foveate.method import decide
from foveate.types import LayerKV, Plan, TokenKinds

if TYPE_CHECKING:
    from foveate.hf.cache import CompressedCache
    from foveate.hf.layer import CompressedLayer

__all__ = ["finish"]


@torch.no_grad()
def finish(cache: CompressedCache, stop: int) -> None:
    """Decide and pack the turn up to logical position `stop`, which its layers have ranked."""
    check_attended(cache)
    turn = cache.turn
    assert turn.kinds is not None
    kinds = turn.kinds.columns(turn.start, stop)
    began = time.perf_counter()
    owners = [layer for layer in cache.compressed_layers if layer.index in turn.scaling]
    packed = False
    stream, turn.stream = turn.stream, None  # which holds the layers
    if turn.is_compressed(kinds):
        cache.seconds += sum(turn.seconds.values())
        lines = None
        if stream is not None:
            lines = stream.close([layer.index for layer in owners])
            cache.held_whole = stream.held_whole
        plan = decide(cache.method, [turn.rankings[layer.index] for layer in owners], lines)
        if stream is not None:
            stream.check(plan)
        packed = all([_pack(cache, layer, plan, i, stop) for i, layer in enumerate(owners)])
        cache.explain = {x.index: e for x, e in zip(owners, plan.explain, strict=True)}
        if cache.method.when.positions == "compacted":
            _shift(cache, plan, kinds)
    else:
        for layer in owners:
            layer.store.seal(stop)
    for layer in owners:
        layer.settle()
    cache.seconds += time.perf_counter() - began
    turn.close(stop, packed)
    turn.start, turn.number = stop, turn.number + 1
    turn.following.start(kinds)


def check_attended(cache: CompressedCache) -> None:
    """Raise `UnsupportedModel` if stored keys did not come to an attention function."""
    for layer in cache.compressed_layers:
        if layer.store.seen and not layer.attended:
            raise UnsupportedModel(
                f"{cache.attachment.model_name} changes the keys of layer {layer.index} between "
                "cache and attention, so it cannot be compressed; run it without Foveate"
            )


def _pack(cache: CompressedCache, layer: CompressedLayer, plan: Plan, i: int, stop: int) -> bool:
    """Store only what the plan keeps in one layer; return whether anything went."""
    ranking = cache.turn.rankings[layer.index]
    counts: Tensor = plan.explain[i]["budget"]
    state = ranking.state if cache.method.when.follow is not None else {}
    kept = _kept(cache, layer, plan, i, stop)
    if kept is None:
        layer.store.seal(stop)
        layer.store.note(counts, state, None)
        return False
    layer.pack(kept, stop)
    layer.store.note(counts, state, kept.packed_positions)
    return True


def _kept(
    cache: CompressedCache, layer: CompressedLayer, plan: Plan, i: int, stop: int
) -> LayerKV | Segments | None:
    """Return what the plan keeps of one layer, or None where that is all of it."""
    keep, form = plan.keep[i], layer.form
    if layer.loose is not None:
        kept = narrowed(layer.loose, keep)
        return kept if form.is_ragged(layer.store, keep) else packed(kept)
    observation = cache.turn.observe(layer.index, *layer.store.tail(stop), queries=False)
    if bool((keep | ~observation.kinds.valid[:, None]).all()):
        return None
    return form.reduced(layer.store, cache.method.reduce, observation, plan.scores[i], keep)


def _shift(cache: CompressedCache, plan: Plan, kinds: TokenKinds) -> None:
    """Let positions go on behind the longest layer, in place of behind the prompt."""
    kept = torch.stack([keep.sum(-1).amax(-1).to(kinds.kind.device) for keep in plan.keep])
    kept = all_heads(kept[None], cache.turn.group, 0).amax((0, 1))
    shift = kinds.valid.sum(-1) - kept
    cache.shift = shift if cache.shift is None else cache.shift + shift

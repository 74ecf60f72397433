"""What tokens cost in a model's cache, and whether answers can be decoded together: tried once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from foveate.cache.dense import owned
from foveate.hf.attach import Lease
from foveate.hf.cache import CompressedCache
from foveate.hf.kinds import visual_ids
from foveate.hf.measure import native_bytes
from foveate.hf.rows import Rows, lonely
from foveate.methods.baselines import full

__all__ = ["Footprint", "held", "let_go"]

PROBE = 4  # tokens


@dataclass(frozen=True)
class Footprint:
    """Bytes of keys and values, and why answers are decoded alone, if they are.

    `windows` holds the bytes of a token in each layer that forgets, and after how many tokens;
    `fixed` is what layers hold whatever came.
    """

    token: int
    windows: tuple[tuple[int, int], ...]
    fixed: int
    alone: str | None

    def of(self, tokens: int) -> int:
        """Return what so many tokens take at most, with nothing evicted."""
        windows = sum(size * min(tokens, window) for size, window in self.windows)
        return self.token * tokens + windows + self.fixed

    @staticmethod
    def measured(model: Any, lease: Lease) -> Footprint:
        """Return the footprint of a model, by a prompt of a few tokens."""
        cache = _read(model, lease)
        token = sum(layer.nbytes for layer in cache.compressed_layers) // PROBE
        windows, fixed = [], 0
        for layer in cache.layers:
            if layer in cache.compressed_layers:
                continue
            window = getattr(layer, "sliding_window", None)
            if isinstance(window, int):
                windows.append((native_bytes(layer) // PROBE, window))
            elif hasattr(layer, "get_seq_length"):
                token += native_bytes(layer) // PROBE
            else:
                fixed += native_bytes(layer)
        return Footprint(token, tuple(windows), fixed, _alone(model, lease, cache))


def held(cache: CompressedCache) -> int:
    """Return the bytes that all layers of a cache hold now."""
    native = (layer for layer in cache.layers if layer not in cache.compressed_layers)
    return sum(layer.nbytes for layer in cache.compressed_layers) + sum(map(native_bytes, native))


def let_go(cache: CompressedCache) -> None:
    """Have windows hold what they show, and not all of the pass that they cut it from."""
    for layer in cache.layers:
        for name in ("keys", "values") if layer not in cache.compressed_layers else ():
            shown = getattr(layer, name, None)
            if isinstance(shown, torch.Tensor):
                setattr(layer, name, owned(shown))


def _ids(model: Any, tokens: int) -> list[int]:
    """Return that many ids of text."""
    taken = visual_ids(model.config)
    return [next(i for i in range(len(taken) + 1) if i not in taken)] * tokens


@torch.no_grad()
def _read(model: Any, lease: Lease) -> CompressedCache:
    """Return a cache that has read a few tokens."""
    cache = CompressedCache(lease, full())
    ids = torch.tensor([_ids(model, PROBE)], device=model.device)
    model(input_ids=ids, attention_mask=torch.ones_like(ids), past_key_values=cache, use_cache=True)
    return cache


def _alone(model: Any, lease: Lease, cache: CompressedCache) -> str | None:
    """Return why nothing can be decoded together here, having tried it, or None where it can."""
    reason = lonely(cache)
    if reason is not None:
        return reason
    try:
        rows = Rows(lease)
        for each in (cache, _read(model, lease)):
            rows.join(each, PROBE)
        rows.step(model, _ids(model, 2))
    except (NotImplementedError, TypeError) as error:  # our refusals are the former
        return f"the model cannot decode several conversations in one pass: {error}"
    return None

"""How much new tokens look at every position so far, on any attention back-end.

The queries come through the attention seam, so the model's own functions run as they are, and no
attention matrix is built. Caps of logits and attention sinks are left out, as scores leave them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from foveate.hf.attention import Tag, attention_seam, tag
from foveate.hf.support import compressible
from foveate.kernels.column_stats import column_stats

__all__ = ["attended"]


@dataclass(frozen=True, eq=False)
class Looks:
    """Whose looks count, at what, and what was found: per layer [B, H, L]."""

    rows: Tensor  # [B, q], the positions of the new tokens, -1 for those that do not count
    columns: Tensor  # [B, L], False for padding
    found: dict[int, Tensor] = field(default_factory=dict)


class _View(Tag):
    """The tag on returned keys: it leaves the mask alone, and adds up what queries give to them."""

    __slots__ = ("_index", "_keys", "_looks")

    def __init__(self, looks: Looks, index: int, keys: Tensor) -> None:
        self._looks, self._index, self._keys = looks, index, keys

    def mask(self, mask: Tensor | None, query: Tensor, name: str) -> Tensor | None:
        """Return the mask as it came."""
        return mask

    def seen(self, module: nn.Module, query: Tensor, scaling: float | None) -> None:
        """Add up one layer's attention, if this module owns the keys."""
        if getattr(module, "layer_idx", self._index) != self._index:
            return
        scaling = scaling or getattr(module, "scaling", None) or query.shape[-1] ** -0.5
        looks, device = self._looks, query.device
        looks.found[self._index] = column_stats(
            query,
            self._keys,
            scaling=float(scaling),
            rows=looks.rows.to(device),
            columns=looks.columns.to(device),
            group=True,
        )


def _update(
    looks: Looks, index: int, update: Any, keys: Tensor, values: Tensor, *rest: Any, **more: Any
) -> tuple[Tensor, Tensor]:
    """Let the layer store new tokens, and tag what it returns."""
    all_keys, all_values = update(keys, values, *rest, **more)
    return tag(all_keys, _View(looks, index, all_keys)), all_values


@contextmanager
def attended(
    model: Any, cache: DynamicCache, rows: Tensor, columns: Tensor
) -> Iterator[dict[int, Tensor]]:
    """Collect, in the one pass inside, what new tokens give to every position of a native cache.

    Yields the softmax weights [B, H, L] of every layer that a compressed cache would compress,
    summed over the `rows`, mean over the query heads of each key-value head.
    """
    config = model.config.get_text_config(decoder=True)
    looks = Looks(rows, columns)
    layers: dict[int, Any] = {index: cache.layers[index] for index in compressible(config)}
    for index, layer in layers.items():
        layer.update = partial(_update, looks, index, layer.update)
    try:
        with torch.no_grad(), attention_seam(config):
            yield looks.found
    finally:
        for layer in layers.values():
            del layer.update

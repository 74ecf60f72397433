"""Attention over ragged storage: what a layer's view says in place of the registered function."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from foveate.cache.ragged import Ragged
from foveate.cache.segments import Segments
from foveate.errors import UnsupportedModel
from foveate.hf.attention import Tag
from foveate.kernels.ragged_attention import ragged_attention
from foveate.types import Float

if TYPE_CHECKING:
    from foveate.hf.layer import CompressedLayer

__all__ = ["RaggedView"]

# what attention functions of transformers take that changes the output, and no kernel of ours knows
UNKNOWN = ("position_bias", "indices", "block_indices", "sinks", "cache", "head_mask", "alibi")
INSTEAD = "use storage='dense'"


class RaggedView(Tag):
    """The tag on keys of a ragged layer: its prefix and tail as they are in this pass."""

    __slots__ = ("base", "keys", "layer", "prefix", "seen_tokens")

    def __init__(self, layer: CompressedLayer, store: Ragged) -> None:
        self.layer, self.prefix, self.keys = layer, store.prefix, store.keys
        self.base, self.seen_tokens = store.base, store.seen

    def attend(
        self,
        query: Tensor,
        value: Tensor,
        mask: Tensor | None,
        scaling: float | None,
        options: Mapping[str, Any],
    ) -> Tensor | None:
        """Return the output [B, q, Hq, Dv] of attention over the prefix and the tail."""
        check_known(mask, query, self.seen_tokens, options)
        turn = self.layer.turn
        prefix_bias = tail_bias = None
        covered = turn.plain_mask and (mask is None or (turn.clean and not turn.open))
        if mask is not None and not covered:
            prefix_bias = bias_of_prefix(mask, self.prefix, query)
        if not covered or query.shape[2] > 1:
            tail_bias = bias_of_tail(mask, query, self.base, self.seen_tokens)
        prefix = self.prefix
        return ragged_attention(
            query,
            prefix.keys,
            prefix.values,
            prefix.offsets,
            self.keys,
            value,
            scaling=query.shape[-1] ** -0.5 if scaling is None else scaling,
            softcap=options.get("softcap"),
            sinks=options.get("s_aux"),
            prefix_bias=prefix_bias,
            tail_bias=tail_bias,
            layout=prefix.layout,
        )

    def mask(self, mask: Tensor | None, query: Tensor, name: str) -> Tensor | None:
        """Return the mask as it came: `attend` has read it."""
        return mask

    def seen(self, module: nn.Module, query: Tensor, scaling: float | None) -> None:
        """Hand the queries to the layer that owns the keys."""
        self.layer.note_queries(module, query, scaling)


def check_known(mask: Tensor | None, query: Tensor, seen: int, options: Mapping[str, Any]) -> None:
    """Raise `UnsupportedModel` for what would change the output and is not known here."""
    found = [name for name in UNKNOWN if options.get(name) is not None]
    window = options.get("sliding_window")
    if window is not None and window < seen:
        found.append("sliding_window")
    if options.get("dropout"):
        found.append("dropout")
    if mask is None and query.shape[2] > 1 and options.get("is_causal") is False:
        found.append("is_causal=False")
    if mask is not None and mask.ndim == 4 and mask.shape[1] != 1:
        found.append("a mask per query head")
    if found:
        raise UnsupportedModel(
            f"the model's attention came with {', '.join(found)}, which ragged storage does not "
            f"know; {INSTEAD}"
        )


def bias_of_prefix(mask: Tensor, prefix: Segments, query: Tensor) -> Float[Tensor, "q S"] | None:
    """Return what a mask over logical positions adds to the logits of the prefix.

    All of it lies before the queries, so a mask [B, T] of padding says everything.
    """
    rows, positions = prefix.row_numbers(), prefix.positions.long()
    if mask.ndim == 2:
        seen = mask[rows, positions] != 0
        return added(seen, query).expand(query.shape[2], -1)
    rows = rows if len(mask) > 1 else torch.zeros_like(rows)
    picked = mask[:, 0].transpose(0, 1).flatten(1)[:, rows * mask.shape[-1] + positions]
    return added(picked, query)


def bias_of_tail(
    mask: Tensor | None, query: Tensor, base: int, seen: int
) -> Float[Tensor, "b x q t"] | None:
    """Return what a mask over logical positions, completed by causality, adds for the tail."""
    B, _, q, _ = query.shape
    if mask is not None and mask.ndim == 4:
        return added(mask[..., base:seen].expand(B, -1, -1, -1), query)
    place = torch.arange(base, seen, device=query.device)
    allowed = (place <= place[-q:, None])[None, None]
    if mask is not None:
        allowed = allowed & (mask[:, None, None, base:seen] != 0)
    return added(allowed.expand(B, -1, -1, -1), query)


def added(mask: Tensor, query: Tensor) -> Tensor:
    """Return a mask as what is added to logits, minus infinity where a bool one is False."""
    if mask.is_floating_point():
        return mask
    return torch.zeros_like(mask, dtype=query.dtype).masked_fill(~mask, -torch.inf)

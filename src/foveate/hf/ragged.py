"""Attention over ragged storage: what a layer's view says in place of the registered function."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from foveate.cache.ragged import Ragged
from foveate.cache.segments import Segments
from foveate.errors import UnsupportedModel
from foveate.hf.attention import EAGER, STRANGE, Call, Tag
from foveate.kernels.ragged_attention import ragged_attention
from foveate.types import Float

if TYPE_CHECKING:
    from foveate.hf.layer import CompressedLayer

__all__ = ["RaggedView", "check_weights"]

INSTEAD = "which ragged storage does not know; use storage='dense'"


class RaggedView(Tag):
    """The tag on keys of a ragged layer: its prefix and its tail as they are in this pass."""

    __slots__ = ("base", "keys", "layer", "prefix", "tokens")

    def __init__(self, layer: CompressedLayer, store: Ragged) -> None:
        self.layer, self.prefix, self.keys = layer, store.prefix, store.keys
        self.base, self.tokens = store.base, store.seen

    # Compiled, it would be made anew for the sizes of every layer.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def attend(self, call: Call) -> Tensor | None:
        """Return the output [B, q, Hq, Dv] of attention over the prefix and the tail."""
        check_known(call, self.tokens)
        prefix, query, mask, turn = self.prefix, call.query, call.mask, self.layer.turn
        prefix_bias = tail_bias = None
        covered = turn.plain_mask and (mask is None or (turn.clean and not turn.open))
        if mask is not None and not covered:
            prefix_bias = bias_of_prefix(mask, prefix, query)
        if not covered or query.shape[2] > 1:
            tail_bias = bias_of_tail(mask, query, self.base, self.tokens)
        plain = call.name == "sdpa"  # which knows neither caps nor sinks, in this pass or another
        return ragged_attention(
            query,
            *prefix.contents(),
            prefix.offsets,
            self.keys,
            call.value,
            scaling=query.shape[-1] ** -0.5 if call.scaling is None else call.scaling,
            softcap=None if plain else call.options.get("softcap"),
            sinks=None if plain else call.options.get("s_aux"),
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


def check_known(call: Call, seen: int) -> None:
    """Raise `UnsupportedModel` for what would change the output and is not known here."""
    options, mask = call.options, call.mask
    found = [name for name in STRANGE if options.get(name) is not None]
    window = options.get("sliding_window")
    if window is not None and window < seen:
        found.append(f"a window of {window} tokens over {seen}")
    if options.get("dropout"):
        found.append("dropout")
    if mask is None and call.query.shape[2] > 1 and options.get("is_causal") is False:
        found.append("queries that look ahead")
    if mask is not None and mask.ndim == 4 and mask.shape[1] != 1:
        found.append("a mask for every query head")
    if call.name == EAGER and not type(call.module).__module__.startswith("transformers."):
        found.append("an eager function of its own (attn_implementation='sdpa' has none)")
    if found:
        raise UnsupportedModel(f"the attention of this model has {', '.join(found)}, {INSTEAD}")


def check_weights(options: Any, config: Any) -> None:
    """Raise `UnsupportedModel` if a pass is asked for attention weights and eager attention."""
    asked = options.get("output_attentions")
    asked = getattr(config, "output_attentions", False) if asked is None else asked
    if asked and config._attn_implementation in ("eager", EAGER):
        raise UnsupportedModel(f"attention weights were asked for (output_attentions), {INSTEAD}")


def bias_of_prefix(mask: Tensor, prefix: Segments, query: Tensor) -> Float[Tensor, "q S"]:
    """Return what a mask over logical positions adds to the logits of the prefix.

    All of it lies before the queries, so a mask [B, T] of padding says everything.
    """
    rows, positions = prefix.row_numbers(), prefix.positions.long()
    if mask.ndim == 2:
        return added(mask[rows, positions] != 0, query).expand(query.shape[2], -1)
    rows = rows if len(mask) > 1 else torch.zeros_like(rows)
    table = mask[:, 0].transpose(0, 1).flatten(1)  # [q, B * T]
    return added(table[:, rows * mask.shape[-1] + positions], query)


def bias_of_tail(
    mask: Tensor | None, query: Tensor, base: int, seen: int
) -> Float[Tensor, "B x q t"]:
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

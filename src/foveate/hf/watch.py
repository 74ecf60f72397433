"""Which key every query head looks at most while a model generates, on any attention back-end.

The queries come through the attention seam, so no attention matrix is ever built: the largest
weight of a row is where the largest logit is.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from foveate.errors import UnsupportedModel
from foveate.hf.attention import Tag, attention_seam, tag
from foveate.hf.support import check_model, head_counts, optional, unwrap

__all__ = ["Watched", "greedy", "plain_cache", "shape"]


def shape(model: Any) -> tuple[int, int, int]:
    """Return how many decoder layers, query heads and key-value heads a model has."""
    config: Any = unwrap(model).config
    text = config.get_text_config(decoder=True)
    layers, heads, kv_heads = head_counts(text)
    if not isinstance(heads, int) or not isinstance(kv_heads, int) or heads % kv_heads:
        raise UnsupportedModel(
            f"{type(text).__name__} states {heads!r} query heads and {kv_heads!r} key-value heads; "
            "a table needs one number of each for all layers, the second dividing the first"
        )
    return layers, heads, kv_heads


def plain_cache(model: nn.Module) -> DynamicCache:
    """Return an empty native cache; `UnsupportedModel` for a model without the seam."""
    check_model(model)
    config: Any = model.config
    return DynamicCache(config=config.get_text_config(decoder=True))


class Watched:
    """A native cache whose keys are tagged, and per forward pass the most attended positions."""

    def __init__(self, model: nn.Module) -> None:
        self.layers, self.query_heads, _ = shape(model)
        self.cache = plain_cache(model)
        self.passes: list[Tensor] = []  # each [N, Hq], -1 for layers without attention
        self.lengths: dict[int, int] = {}  # per layer, how many positions it has seen
        config: Any = model.config
        crossing = optional(config.get_text_config(decoder=True), "cross_attention_layers") or ()
        for index, layer in enumerate(self.cache.layers):
            if isinstance(layer, DynamicLayer) and index not in crossing:
                layer.update = partial(  # type: ignore[method-assign]
                    self._update, layer, index, layer.update
                )

    def _update(
        self,
        layer: Any,
        index: int,
        update: Any,
        keys: Tensor,
        values: Tensor,
        *rest: Any,
        **more: Any,
    ) -> tuple[Tensor, Tensor]:
        """Let the layer store new tokens, and tag what it returns."""
        if index == min(self.lengths, default=index):
            empty = torch.full((self.layers, self.query_heads), -1, device=keys.device)
            self.passes.append(empty)
        self.lengths[index] = self.lengths.get(index, 0) + keys.shape[-2]
        all_keys, all_values = update(keys, values, *rest, **more)
        window = getattr(layer, "sliding_window", None)
        return tag(all_keys, _View(self, index, all_keys, window)), all_values

    def note(self, index: int, found: Tensor) -> None:
        """Keep the positions [Hq] of one layer in this pass."""
        self.passes[-1][index] = found.to(self.passes[-1].device)


class _View(Tag):
    """The tag on returned keys: it leaves the mask alone, and looks at the last query."""

    __slots__ = ("_index", "_keys", "_mask", "_watched", "_window")

    def __init__(self, watched: Watched, index: int, keys: Tensor, window: int | None) -> None:
        self._watched, self._index, self._keys, self._window = watched, index, keys, window
        self._mask: Tensor | None = None

    def mask(self, mask: Tensor | None, query: Tensor, name: str) -> Tensor | None:
        """Return the mask as it came."""
        self._mask = mask
        return mask

    def seen(self, module: nn.Module, query: Tensor, scaling: float | None) -> None:
        """Note where the last query of every head looks."""
        keys, lengths = self._keys[0], self._watched.lengths
        scaling = scaling or getattr(module, "scaling", None) or query.shape[-1] ** -0.5
        column = most_attended(query[0, :, -1], keys, float(scaling), self._mask, self._window)
        index = getattr(module, "layer_idx", self._index)
        self._watched.note(index, column + lengths[self._index] - keys.shape[-2])


def most_attended(
    query: Tensor,
    keys: Tensor,
    scaling: float,
    mask: Tensor | None = None,
    window: int | None = None,
) -> Tensor:
    """Return the column [Hq] of the largest logit of the newest query [Hq, D] over keys [H, T, D].

    Logits are float32; of equal ones the first counts.
    """
    H, T, D = keys.shape
    grouped = query.float().reshape(H, -1, D) * scaling
    logits = (grouped @ keys.float().transpose(-1, -2)).flatten(0, 1)  # [Hq, T]
    if mask is not None and mask.ndim == 4:
        row = mask[0, :, -1, :T].to(logits.device)  # [1|Hq, T]
        if row.dtype == torch.bool:
            logits = logits.masked_fill(~row, -torch.inf)
        else:
            logits = logits + row.float()
    if window is not None and window < T:
        logits[:, : T - window] = -torch.inf
    return logits.argmax(-1)


@torch.no_grad()
def greedy(model: Any, inputs: Mapping[str, Any], max_new_tokens: int) -> tuple[list[int], Tensor]:
    """Return what one prompt makes a model write, and where its heads looked for every token.

    The second is [S, N, Hq]: for each of S tokens the prompt or answer position that the last query
    of the pass which produced it attended to most, -1 for layers without attention.
    """
    model = unwrap(model)
    watched = Watched(model)
    with attention_seam(model.config.get_text_config(decoder=True)):
        output = model.generate(
            **inputs,
            past_key_values=watched.cache,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
        )
    tokens = output[0, inputs["input_ids"].shape[1] :].tolist()
    if len(watched.passes) != len(tokens):
        raise UnsupportedModel(
            f"{type(model).__name__} ran {len(watched.passes)} forward passes with the cache for "
            f"{len(tokens)} tokens; its heads can be scored only where each pass makes one token"
        )
    return tokens, torch.stack(watched.passes).cpu()

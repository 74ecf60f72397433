"""One prompt through a model, for what is measured on its cache: redundancies and layer sizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from foveate.calibration.keys import redundancy
from foveate.hf.cache import CompressedCache
from foveate.hf.support import compressible, unwrap
from foveate.hf.watch import plain_cache, shape
from foveate.method import Method

__all__ = ["kept_shares", "key_redundancy"]


def key_redundancy(model: Any, inputs: Mapping[str, Any]) -> Tensor:
    """Return the redundancy [N, H] of a prompt's keys; zero for layers that nothing compresses."""
    model = unwrap(model)
    layers, _, kv_heads = shape(model)
    cache = plain_cache(model)
    _prefill(model, inputs, cache)
    found = torch.zeros(layers, kv_heads, dtype=torch.float64)
    for index in compressible(model.config.get_text_config(decoder=True)):
        layer: Any = cache.layers[index]
        found[index] = redundancy(layer.keys[0]).cpu()
    return found


def kept_shares(model: Any, inputs: Mapping[str, Any], method: Method) -> Tensor:
    """Return the share [N] of a prompt that a method keeps in each layer; 1 where it has no say."""
    model = unwrap(model)
    cache = CompressedCache(model, method)
    _prefill(model, inputs, cache)
    report = cache.report()
    found = torch.ones(shape(model)[0], dtype=torch.float64)
    for layer in report.layers:
        kept = layer.kept_visual + layer.kept_text
        found[layer.layer] = kept / (report.total_visual + report.total_text)
    return found


@torch.no_grad()
def _prefill(model: Any, inputs: Mapping[str, Any], cache: Any) -> None:
    """Fill the cache with the prompt; the one new token is not fed back."""
    model.generate(**inputs, past_key_values=cache, max_new_tokens=1, do_sample=False, num_beams=1)

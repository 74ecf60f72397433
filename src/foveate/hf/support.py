"""Which models have a seam: what is refused, with the reason, before anything is changed."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import DynamicCache, GenerationMixin
from transformers.cache_utils import Cache, DynamicLayer

from foveate.errors import MethodError, UnsupportedModel
from foveate.hf.attention import check_attention
from foveate.method import Fitted, Method


def unwrap(model: Any) -> nn.Module:
    """Return the Hugging Face model inside a compiled or adapter wrapper."""
    model = getattr(model, "_orig_mod", model)
    if hasattr(model, "get_base_model"):
        model = model.get_base_model()
    if not isinstance(model, nn.Module) or not hasattr(model, "config"):
        raise UnsupportedModel(
            f"{type(model).__name__} is not a Hugging Face model; give what from_pretrained gave"
        )
    return model


def optional(config: Any, name: str) -> Any:
    """Return a config value, or None where it is missing or differs from layer to layer."""
    try:
        return getattr(config, name, None)
    except RuntimeError:  # transformers raises one for values that are stated per layer
        return None


def head_counts(config: Any) -> tuple[int, Any, Any]:
    """Return how many layers, query heads and key-value heads a text config states."""
    heads = optional(config, "num_attention_heads")
    return int(config.num_hidden_layers), heads, optional(config, "num_key_value_heads") or heads


def check_method(method: Any) -> None:
    """Raise `MethodError` for what is not a method."""
    if not isinstance(method, Method):
        raise MethodError(
            f"{method!r} is not a method; give foveate.aircache(keep=0.1), or another preset"
        )


def check_fitted(method: Method, config: Any) -> None:
    """Raise `MethodError` if a part of the method was measured on another model."""
    for part in (method.score, method.budget):
        if isinstance(part, Fitted):
            layers, heads, kv_heads = head_counts(config.get_text_config(decoder=True))
            name = optional(config, "_name_or_path") or None
            part.check(name, layers, heads or 0, kv_heads or 0)


def has_grid_positions(config: Any) -> bool:
    """Return whether rotary positions have time, height and width (M-RoPE)."""
    given = (optional(config, "rope_parameters"), optional(config, "rope_scaling"))
    return any("mrope_section" in rope for rope in given if isinstance(rope, dict))


def native_layers(config: Any) -> list[Any]:
    """Return the cache layers that transformers itself would use for this model."""
    try:
        return list(DynamicCache(config=config).layers)
    except AttributeError as error:
        raise UnsupportedModel(
            f"{type(config).__name__} does not describe a decoder that keeps a cache ({error}); "
            "run it without Foveate"
        ) from error


def compressible(config: Any) -> list[int]:
    """Return the indices of the plain full-attention layers of a text config."""
    crossing = set(optional(config, "cross_attention_layers") or ())
    layers = native_layers(config)
    return [
        i for i, layer in enumerate(layers) if type(layer) is DynamicLayer and i not in crossing
    ]


def check_model(model: nn.Module) -> None:
    """Raise `UnsupportedModel` with the reason if the model's cache cannot be compressed."""
    config: Any = model.config
    name = type(model).__name__
    if getattr(config, "is_encoder_decoder", False):
        raise UnsupportedModel(
            f"{name} is an encoder-decoder; Foveate compresses decoder-only models"
        )
    text = config.get_text_config(decoder=True)
    if hasattr(model, "generate") and not isinstance(model, GenerationMixin):
        raise UnsupportedModel(
            f"{name} does not generate token by token; Foveate compresses autoregressive models"
        )
    if optional(text, "kv_lora_rank"):
        raise UnsupportedModel(
            f"{name} uses multi-head latent attention: its cache holds latents, not keys and "
            "values per head, and is small already; run it without Foveate"
        )
    if "linear_attention" in (optional(text, "layer_types") or ()) and not hasattr(
        Cache, "has_previous_state"
    ):
        raise UnsupportedModel(
            f"{name} mixes recurrent and attention layers, for which this release of transformers "
            "has a cache of the model's own; use transformers 5.14 or newer"
        )
    check_attention(text._attn_implementation)
    if not compressible(text):
        kinds = sorted({type(layer).__name__ for layer in native_layers(text)})
        raise UnsupportedModel(
            f"{name} has no full-attention layer to compress (its cache layers are "
            f"{', '.join(kinds) or 'none'}), each bounds its own; run it without Foveate"
        )

"""The language model inside a vision-language model, as a checkpoint of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from foveate.errors import UnsupportedModel
from foveate.hf.support import optional, unwrap
from foveate.integrations.vllm.families import known_family, rope_settings

__all__ = ["export_language_model"]

OWN = ("model_type", "architectures", "transformers_version", "_name_or_path", "dtype",
       "torch_dtype", "tie_word_embeddings", "rope_scaling", "rope_parameters", "rope_theta",
       "rope_type")  # fmt: skip


def export_language_model(model: Any, folder: str | Path, processor: Any = None) -> Path:
    """Write the language model that vLLM is going to decode with, and the processor's tokenizer.

    Qwen2.5-VL becomes a Qwen2, Qwen3-VL a Qwen3, LLaVA what is inside it; layers, norms and rotary
    settings are those of the model. Without a processor, start vLLM with skip_tokenizer_init.
    Raises `UnsupportedModel` for language models that are not known.
    """
    model, folder = unwrap(model), Path(folder)
    text = model.config.get_text_config(decoder=True)  # type: ignore[union-attr, operator]
    weights = _weights(model, text)
    config = _config(text, weights)
    with torch.device("meta"):
        alone = AutoModelForCausalLM.from_config(config)
    alone.load_state_dict(weights, strict=False, assign=True)
    alone.tie_weights()
    _check(alone, weights)
    generation = getattr(model, "generation_config", None)
    if generation is not None:
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            setattr(alone.generation_config, name, getattr(generation, name, None))
    alone.save_pretrained(folder)
    tokenizer = getattr(processor, "tokenizer", processor)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    return folder


def _weights(model: nn.Module, text: Any) -> dict[str, Tensor]:
    """Return the weights of the decoder and its head, as a causal language model names them."""
    decoder = next((m for m in model.modules() if _is_decoder(m, text)), None)
    head: Any = model.get_output_embeddings()  # type: ignore[operator]
    if decoder is None or head is None:
        raise UnsupportedModel(
            f"{type(model).__name__} has no decoder with a head over the vocabulary; give the "
            "model that generates"
        )
    weights = {f"model.{name}": weight.detach() for name, weight in decoder.state_dict().items()}
    table = weights["model.embed_tokens.weight"]
    if head.weight.data_ptr() != table.data_ptr():
        weights["lm_head.weight"] = head.weight.detach()
    return weights


def _is_decoder(module: nn.Module, text: Any) -> bool:
    """Return whether a module is the stack of layers that the text configuration describes."""
    whole = hasattr(module, "layers") and hasattr(module, "embed_tokens")
    return whole and type(getattr(module, "config", None)) is type(text)


def _config(text: Any, weights: dict[str, Tensor]) -> Any:
    """Return the configuration, with everything that the text model states and knows."""
    kind = known_family(text)
    stated = {name: optional(text, name) for name in AutoConfig.for_model(kind).to_dict()}
    return AutoConfig.for_model(
        kind,
        **{k: v for k, v in stated.items() if v is not None and k not in OWN},
        **rope_settings(text),
        tie_word_embeddings="lm_head.weight" not in weights,
        dtype=weights["model.embed_tokens.weight"].dtype,
    )


def _check(alone: nn.Module, weights: dict[str, Tensor]) -> None:
    """Raise `UnsupportedModel` unless both have the same weights."""
    wanted = {name for name, _ in alone.named_parameters()}
    if wanted != set(weights):
        differing = ", ".join(sorted(wanted ^ set(weights))[:3])
        raise UnsupportedModel(
            f"the text model has other weights than {type(alone).__name__} has: {differing}; it "
            "cannot be written as one"
        )

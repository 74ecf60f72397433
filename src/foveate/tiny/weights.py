"""Read and write the shipped checkpoint on every supported release of transformers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import Qwen3VLForConditionalGeneration

from foveate.tiny import architecture, tokenizer
from foveate.tiny.processor import Processor


def load(
    folder: Path, device: str | torch.device, dtype: torch.dtype | None
) -> tuple[Qwen3VLForConditionalGeneration, Processor]:
    """Model and processor; the config is built in code, since its spelling differs by release."""
    sizes = json.loads((folder / "config.json").read_text())["text_config"]
    model: Any = architecture.build(sizes["num_hidden_layers"], sizes["hidden_size"])
    stored = load_file(folder / "model.safetensors")
    stored["lm_head.weight"] = stored["model.language_model.embed_tokens.weight"]
    model.load_state_dict({name: value.float() for name, value in stored.items()})
    model = architecture.lower(model, dtype or torch.float32).to(device)
    return model.eval().requires_grad_(False), Processor()


def save(model: Any, folder: Path) -> None:
    """Write bf16 weights, config and tokenizer so that old and new releases load them alike."""
    architecture.lower(model, torch.bfloat16).save_pretrained(folder)
    tokenizer.build().save_pretrained(folder)
    rope: dict[str, Any] = {"rope_type": "default", "mrope_interleaved": True}
    rope["mrope_section"] = architecture.MROPE_SECTION
    old = {"rope_theta": architecture.ROPE_THETA, "rope_scaling": rope}
    _edit(folder / "config.json", lambda config: config["text_config"].update(old))
    kind = {"tokenizer_class": "PreTrainedTokenizerFast", "extra_special_tokens": {}}
    _edit(folder / "tokenizer_config.json", lambda config: config.update(kind))
    for path in folder.iterdir():
        path.chmod(0o644)


def _edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content, indent=2) + "\n")

"""Read the shipped checkpoint on every supported release of transformers."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import Qwen3VLForConditionalGeneration

from foveate.tiny import architecture
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

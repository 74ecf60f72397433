"""A language model by itself that decodes from a file: what vLLM does, in plain sight."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, DynamicCache

import foveate
from families import BY_NAME, Family
from foveate import Method
from foveate.integrations.vllm import Handoff

STEPS = 16
HIDDEN = 48  # of the families' language models
NEVER = {"eos_token_id": -1}  # ends nothing, so that all answers have their full length
EVEN = {
    "snapkv": foveate.snapkv(keep=12, window=4),
    "h2o": foveate.h2o(keep=12, every=0),
    "mixkv": foveate.mixkv(keep=12, window=4),
    "lookm": foveate.lookm(keep=14, budget="strict", fold="values"),
    "aircache": foveate.aircache(keep=5, budget="uniform"),
}
RAGGED = {
    "pyramidkv": foveate.pyramidkv(keep=0.4, window=4),
    "adakv": foveate.adakv(keep=0.4, window=4),
    "aircache": foveate.aircache(keep=0.3),
    "vlcache": foveate.vlcache(keep=0.5),
}


def wide(name: str) -> Family:
    """The family with heads of width 32, which vLLM wants."""
    family = BY_NAME[name]

    def settings() -> dict[str, Any]:
        made = family.settings()
        parts = [made.get("text_config", made), made.get("vision_config", {})]
        for part in parts:
            part.update({name: 192 for name, value in part.items() if value == HIDDEN})
        parts[0]["head_dim"] = 32
        for rope in parts[0].values():
            if isinstance(rope, dict) and "mrope_section" in rope:
                rope["mrope_section"] = [8, 4, 4]
        return made

    return replace(family, settings=settings)


def answers(
    model: Any, inputs: dict[str, Tensor], method: Method, steps: int = STEPS
) -> tuple[Tensor, Tensor]:
    """The tokens [B, 1 + steps] that transformers decodes, and the logits behind all but one."""
    cache = foveate.CompressedCache(model, method)
    out = model.generate(
        **inputs,
        **NEVER,
        past_key_values=cache,
        do_sample=False,
        max_new_tokens=steps + 1,
        output_logits=True,
        return_dict_in_generate=True,
    )
    prompt = inputs["input_ids"].shape[1]
    return out.sequences[:, prompt:], torch.stack(out.logits[1:], 1)


@torch.no_grad()
def continued(language_model: Path, handoff: Handoff) -> tuple[list[int], Tensor]:
    """The tokens and logits of a plain causal language model that finds the file's keys."""
    model = AutoModelForCausalLM.from_pretrained(language_model).eval()
    stored, cache = load_file(handoff.path), DynamicCache()
    for layer in range(handoff.layers):
        keys, values = (stored[f"{x}.{layer}"].transpose(0, 1)[None] for x in ("keys", "values"))
        cache.update(keys, values, layer)
    tokens, logits = [handoff.first], []
    for step in range(STEPS):
        position = torch.tensor([[handoff.length + step]])
        out = model(torch.tensor([tokens[-1:]]), past_key_values=cache, position_ids=position)
        logits.append(out.logits[0, -1])
        tokens.append(int(logits[-1].argmax()))
    return tokens, torch.stack(logits)

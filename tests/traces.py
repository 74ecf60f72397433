"""What a call could leave behind on a model or in the registries, and a way to end one early."""

import copy

import torch
from transformers import LogitsProcessor
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS


def registries() -> dict:
    """Every function that Hugging Face's attention and mask registries hold, by name."""
    return {
        (kind, name): function
        for kind, registry in (("f", ALL_ATTENTION_FUNCTIONS), ("m", ALL_MASK_ATTENTION_FUNCTIONS))
        for name, function in registry.items()
    }


def condition(model: torch.nn.Module) -> dict:
    """Everything about a model that a context could leave behind."""
    hooks = ("_forward_pre_hooks", "_forward_hooks", "_forward_pre_hooks_with_kwargs")
    return {
        "registries": registries(),
        "config": copy.deepcopy(model.config.to_dict()),
        "attention": {
            n: m.config._attn_implementation
            for n, m in model.named_modules()
            if hasattr(m, "config")
        },
        "generation": model.generation_config.to_dict(),
        "hooks": {(n, h): len(getattr(m, h)) for n, m in model.named_modules() for h in hooks},
        "methods": {
            n: sorted(k for k in vars(m) if callable(vars(m)[k])) for n, m in model.named_modules()
        },
        "attributes": {
            n: sorted(k for k in vars(m) if k != "rope_deltas") for n, m in model.named_modules()
        },
        "class": {k: v for k, v in vars(type(model)).items() if callable(v)},
    }


class Bomb(LogitsProcessor):
    """Raises at the n-th step."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def __call__(self, input_ids, scores):
        self.steps -= 1
        if self.steps < 0:
            raise KeyboardInterrupt("in the middle of generate")
        return scores

"""How a model rotates its keys, as far as its modules say."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor, nn

from foveate.hf.support import has_grid_positions
from foveate.types import Rotation

__all__ = ["rotary_modules", "rotation"]

TABLES = ("full_attention_inv_freq", "inv_freq")


def rotation(model: nn.Module, text_config: Any) -> Rotation:
    """Return the rotation of the language model's full-attention layers.

    Its frequencies are None where they are not found, or pair other dimensions than d and d + D/2.
    """
    grid = has_grid_positions(text_config)
    for module in rotary_modules(model, text_config):
        for name in TABLES:
            table = getattr(module, name, None)
            if isinstance(table, Tensor) and _turns_halves(module):
                return Rotation(table.detach().float(), grid)
    return Rotation(None, grid)


def rotary_modules(model: nn.Module, text_config: Any) -> list[nn.Module]:
    """Return the modules that turn positions into angles for the language model.

    Which of them a pass calls differs among releases.
    """
    return [
        module
        for module in model.modules()
        if type(module).__name__.endswith("RotaryEmbedding")
        and type(getattr(module, "config", None)) is type(text_config)
    ]


def _turns_halves(module: nn.Module) -> bool:
    """Return whether the module's file pairs dimension d with d + D/2."""
    turn = getattr(sys.modules[type(module).__module__], "rotate_half", None)
    if turn is None:
        return False
    return torch.equal(turn(torch.arange(4.0)), torch.tensor([-2.0, -3.0, 0.0, 1.0]))

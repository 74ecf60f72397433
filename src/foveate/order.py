"""Orders and places: two ways to say the same permutation."""

from __future__ import annotations

import torch
from torch import Tensor

from foveate.types import Int

__all__ = ["inverse"]


def inverse(order: Int[Tensor, "*batch n"]) -> Int[Tensor, "*batch n"]:
    """Return the place of every element in `order`, which lists elements as `argsort` does."""
    places = torch.arange(order.shape[-1], device=order.device).expand_as(order)
    return torch.empty_like(order).scatter_(-1, order, places)

"""Attention of a few queries over segments of unequal length and a dense tail, without padding."""

from functools import wraps
from typing import Any

import torch
from torch import Tensor

from foveate.kernels.dispatch import in_triton
from foveate.kernels.ragged_attention import split
from foveate.kernels.ragged_attention.layout import Layout

__all__ = ["Layout", "ragged_attention"]


@wraps(split.ragged_attention)
def ragged_attention(queries: Tensor, *others: Any, **options: Any) -> Tensor:  # noqa: D103
    on_gpu = queries.is_cuda and queries.dtype != torch.float64
    kernel = (in_triton("ragged_attention") if on_gpu else None) or split.ragged_attention
    return kernel(queries, *others, **options)

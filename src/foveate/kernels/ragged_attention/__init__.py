"""Attention of a few queries over segments of unequal length and a dense tail, without padding."""

from collections.abc import Callable
from functools import cache, wraps
from typing import Any

import torch
from torch import Tensor

from foveate.kernels.ragged_attention import split
from foveate.kernels.ragged_attention.layout import Layout

__all__ = ["Layout", "ragged_attention"]


@wraps(split.ragged_attention)
def ragged_attention(queries: Tensor, *others: Any, **options: Any) -> Tensor:  # noqa: D103
    on_gpu = queries.is_cuda and queries.dtype != torch.float64
    kernel = (in_triton() if on_gpu else None) or split.ragged_attention
    return kernel(queries, *others, **options)


@cache
def in_triton() -> Callable[..., Tensor] | None:
    """Return the kernel in Triton, or None where there is no Triton."""
    try:
        from foveate.kernels.ragged_attention.fused import ragged_attention
    except ImportError:
        return None
    return ragged_attention

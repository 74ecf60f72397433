"""Sums and maxima of the columns of softmax attention, without the whole matrix."""

from functools import wraps
from typing import Any

import torch
from torch import Tensor

from foveate.kernels.column_stats import blocked
from foveate.kernels.column_stats.blocked import row_blocks
from foveate.kernels.dispatch import in_triton

__all__ = ["column_stats", "row_blocks"]

SHORT = (torch.float32, torch.bfloat16, torch.float16)  # what matrix units multiply


@wraps(blocked.column_stats)
def column_stats(queries: Tensor, keys: Tensor, **options: Any) -> Tensor:  # noqa: D103
    on_gpu = keys.is_cuda and queries.dtype == keys.dtype and keys.dtype in SHORT
    kernel = (in_triton("column_stats") if on_gpu else None) or blocked.column_stats
    return kernel(queries, keys, **options)

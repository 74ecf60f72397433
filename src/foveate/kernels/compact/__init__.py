"""Keys and values of named tokens, taken out in one pass."""

from functools import wraps
from typing import Any

from torch import Tensor

from foveate.kernels.compact import gather
from foveate.kernels.dispatch import in_triton

__all__ = ["compact"]


@wraps(gather.compact)
def compact(keys: Tensor, *others: Any) -> tuple[Tensor, Tensor]:  # noqa: D103
    kernel = (in_triton("compact") if keys.is_cuda else None) or gather.compact
    return kernel(keys, *others)

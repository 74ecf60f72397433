"""What kernels in Triton share: how wide the device is, and how matrices are multiplied."""

from functools import cache

import torch
import triton
import triton.language as tl
from triton.runtime import JITFunction

__all__ = ["multiprocessors", "precision", "product"]


@cache
def multiprocessors(device: torch.device) -> int:
    """Return how many multiprocessors a device has; one, if it is none of NVIDIA's or AMD's."""
    if device.type != "cuda":
        return 1
    return torch.cuda.get_device_properties(device).multi_processor_count


def precision(dtype: torch.dtype) -> dict[str, object]:
    """Return how to multiply matrices: numbers of 32 bits as three of what tensor cores take.

    Triton's interpreter multiplies the bits of bfloat16; it is given float32.
    """
    interpreted = not isinstance(product, JITFunction)
    split = dtype == torch.float32 and torch.version.hip is None
    return {"PRECISION": "tf32x3" if split else "ieee", "WIDE": interpreted}


@triton.jit
def product(a, b, total, PRECISION: tl.constexpr, WIDE: tl.constexpr):
    """Return `a @ b + total`."""
    if WIDE:
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, total, input_precision=PRECISION)

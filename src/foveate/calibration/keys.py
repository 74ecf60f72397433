"""What is measured on the keys of a whole prompt: how alike those of a head are.

MixKV, arXiv 2510.20707: r = (n * |mu|^2 - 1) / (n - 1) with mu the mean of the n unit keys, which
is the mean cosine of two different keys. Differs from the paper: nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor

from foveate.types import Float

__all__ = ["redundancy"]


def redundancy(keys: Float[Tensor, "H T D"]) -> Float[Tensor, " H"]:
    """Return the mean cosine of every two different keys of each head, from -1/(T-1) to 1."""
    n = keys.shape[1]
    unit = torch.nn.functional.normalize(keys.double(), dim=-1, eps=1e-12)
    squared = unit.mean(1).square().sum(-1)
    return (n * squared - 1) / max(n - 1, 1)

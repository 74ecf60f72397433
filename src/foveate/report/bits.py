"""Marks and shades as the page reads them: packed, and as text."""

import base64

import numpy as np
from torch import Tensor

__all__ = ["packed", "shades"]


def packed(marks: Tensor) -> str:
    r"""Return marks of any shape in row order, eight to a byte, the first lowest, as base64.

    >>> import torch
    >>> base64.b64decode(packed(torch.tensor([[True, False, False], [True, False, False]])))
    b'\t'
    """
    bits = np.packbits(marks.numpy().astype(bool).reshape(-1), bitorder="little")
    return base64.b64encode(bits.tobytes()).decode("ascii")


def shades(values: Tensor) -> str:
    """Return weights in row order, one to a byte, as 255 times their square root, as base64.

    >>> import torch
    >>> list(base64.b64decode(shades(torch.tensor([0.0, 0.25, 1.0]))))
    [0, 128, 255]
    """
    levels = (values.clamp(0, 1).sqrt() * 255).round().numpy().astype(np.uint8)
    return base64.b64encode(levels.tobytes()).decode("ascii")

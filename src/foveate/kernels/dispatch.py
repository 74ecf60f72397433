"""Which of the kernels there are in Triton."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

__all__ = ["in_triton"]


@cache
def in_triton(name: str) -> Callable[..., Any] | None:
    """Return the kernel of that name in Triton, or None where there is no Triton."""
    if find_spec("triton") is None:
        return None
    return getattr(import_module(f"foveate.kernels.{name}.fused"), name)

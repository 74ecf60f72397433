"""The least time that a decode step can take: its bytes over the memory's measured bandwidth.

A step reads every weight of the language model once, and every stored key and value once.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch

from foveate.bench.timing import CLOCKS, milliseconds

TIMES = 20  # that a buffer is read; the quickest counts
GIB = 2**30


@dataclass(frozen=True)
class Roof:
    """Bytes per second that this machine reads, measured over `working` bytes."""

    bandwidth: float
    working: int
    device: str
    dtype: str
    threads: int

    def milliseconds(self, weights: int, cache: float) -> float:
        """Return the least time of a step that reads weights and a cache of so many bytes."""
        return 1000 * (weights + cache) / self.bandwidth

    def to_dict(self) -> dict[str, Any]:
        """Return the roof as plain values."""
        return asdict(self)


def measured(device: str, dtype: str, working: int | None = None) -> Roof:
    """Return the bandwidth of summing a buffer of `working` bytes.

    The most, and the default, is larger than a processor's caches: 1 GiB, or 8 GiB on a GPU.
    """
    most = GIB if device == "cpu" else 8 * GIB
    kind = getattr(torch, dtype)
    count = max(min(working or most, most) // kind.itemsize, 1)
    buffer = torch.ones(count, dtype=kind, device=device)
    spent = [milliseconds(buffer.sum, device, CLOCKS["wall"]) for _ in range(TIMES + 1)][1:]
    nbytes = count * kind.itemsize
    return Roof(1000 * nbytes / min(spent), nbytes, device, dtype, torch.get_num_threads())


def predicted(weights: int, cache: float, full: float) -> float:
    """Return the ratio of two steps' times if bytes were all: a cache's over the full one's.

    >>> predicted(weights=100, cache=50, full=200)
    0.5
    """
    return (weights + cache) / (weights + full)

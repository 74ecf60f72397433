"""The heads of a layer that other processes hold, under tensor parallelism.

What is averaged over heads, or decides counts, is gathered and then computed from all heads in
every process alike, so that all of them find what a single one would.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

__all__ = ["HeadGroup", "all_heads", "own_heads", "total"]


@runtime_checkable
class HeadGroup(Protocol):
    """Processes with as many heads of a layer each, those of lower rank before those of higher."""

    @property
    def rank(self) -> int:
        """Return the place of this process, from 0."""

    @property
    def size(self) -> int:
        """Return how many processes there are."""

    def gather(self, part: Tensor, dim: int) -> Tensor:
        """Return what all processes brought, side by side; every one brings the same shape."""


def all_heads(part: Tensor, group: HeadGroup | None, dim: int = 1) -> Tensor:
    """Return the values of all heads, `part` being those of this process's."""
    if group is None:
        return part
    if part.shape[dim] > 1 and not part.stride(dim):  # heads that are alike are so everywhere
        sizes = [-1] * part.ndim
        sizes[dim] = part.shape[dim] * group.size
        return part.narrow(dim, 0, 1).expand(sizes)
    return group.gather(part, dim)


def own_heads(values: Tensor, group: HeadGroup | None, dim: int = -1) -> Tensor:
    """Return the part of all heads' values that is of this process's."""
    if group is None:
        return values
    heads = values.shape[dim] // group.size
    return values.narrow(dim, group.rank * heads, heads)


def total(part: Tensor, group: HeadGroup | None) -> Tensor:
    """Return sums over all heads, `part` being those over this process's."""
    return part if group is None else group.gather(part[None], 0).sum(0)

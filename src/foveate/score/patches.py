"""Where the tokens of images and videos lie: in which frame, row and column."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from foveate.types import Float, Int, TokenKinds

__all__ = ["Patches", "averaged", "patches"]


@dataclass(frozen=True, eq=False)
class Patches:
    """Of every visual token: its number in the row, in its image, and its image's grid.

    Numbers mean nothing elsewhere. An image of unknown grid is one row of tokens.
    """

    number: Int[Tensor, "B T"]
    within: Int[Tensor, "B T"]
    grid: Int[Tensor, "B T 3"]  # frames, rows, columns

    @property
    def area(self) -> Int[Tensor, "B T"]:
        """Return the number of tokens in a frame."""
        return self.grid[..., 1] * self.grid[..., 2]

    @property
    def flat(self) -> Patches:
        """Return the same tokens, every image being one row of them."""
        one = torch.ones_like(self.number)
        return Patches(self.number, self.within, torch.stack([one, one, self.grid.prod(-1)], -1))


def patches(kinds: TokenKinds) -> Patches:
    """Return where the visual tokens lie, those of one image being in a line."""
    visual, span, T = kinds.visual, kinds.span.clamp(min=0), kinds.span.shape[-1]
    number = visual.cumsum(-1) - 1
    # A later turn's spans are numbered on, so that their numbers may exceed its tokens'.
    first = span.masked_fill(~visual, torch.iinfo(span.dtype).max).amin(-1, keepdim=True)
    among = (span - first).clamp(0, max(0, T - 1))
    sizes = torch.zeros_like(span).scatter_add(-1, among, visual.long())
    within = number - (sizes.cumsum(-1) - sizes).gather(-1, among)
    size = sizes.gather(-1, among)
    one = torch.ones_like(size)
    grid = torch.stack([one, one, size.clamp(min=1)], -1)
    spans = max((len(grids) for grids in kinds.grids), default=0)
    if spans:
        padded = [[*grids, *[(0, 0, 0)] * (spans - len(grids))] for grids in kinds.grids]
        index = span.clamp(max=spans - 1)[..., None].expand(-1, -1, 3)
        known = torch.tensor(padded, device=span.device).gather(1, index)
        told = visual & (span < spans) & (known.prod(-1) == size)
        grid = torch.where(told[..., None], known, grid)
    return Patches(number, within, grid)


def averaged(
    scores: Float[Tensor, "B H T"], kinds: TokenKinds, kernel: int, axes: tuple[int, ...]
) -> Float[Tensor, "B H T"]:
    """Return means over a box of `kernel` patches along some axes of every image.

    Axis 0 is time, 1 height, 2 width; `()` stands for the order of the tokens. Zeros outside the
    image count. A box is no longer than the largest odd number that fits into all these axes.
    """
    lie = patches(kinds) if axes else patches(kinds).flat
    axes = axes or (2,)
    sides = lie.grid[..., list(axes)].amin(-1).clamp(max=kernel)
    half = (sides - 1) // 2
    order = (~kinds.visual).int().argsort(dim=-1, stable=True)  # visual tokens first
    out = scores.masked_fill(~kinds.visual[:, None], 0)
    for axis in axes:
        stride = lie.grid[..., axis + 1 :].prod(-1)
        place = lie.within // stride % lie.grid[..., axis]
        total = torch.zeros_like(out)
        for step in range(-(kernel // 2), kernel // 2 + 1):
            there = (place + step >= 0) & (place + step < lie.grid[..., axis])
            there = there & (half >= abs(step))
            near = (lie.number + step * stride).clamp(0, scores.shape[-1] - 1)
            near = order.gather(-1, near)[:, None].expand_as(out)
            total = total + out.gather(-1, near).masked_fill(~there[:, None], 0)
        out = total / (2 * half + 1)[:, None]
    return torch.where(kinds.visual[:, None], out, scores)

"""Which way keys point: the mean of unit keys, and how far every key points along it."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from foveate.types import Bool, Float

__all__ = ["along", "unit_mean"]

TILE_ELEMENTS = 1 << 18  # entries cast to float32 at once: 1 MiB stays in a processor's cache
DEVICE_TILE_ELEMENTS = 1 << 24  # the same on an accelerator, which wants few, large steps
SHORTEST = 1e-12  # what a shorter key is divided by


def unit_mean(keys: Float[Tensor, "B H T D"], among: Bool[Tensor, "B T"]) -> Float[Tensor, "B H D"]:
    """Return `mean_j k[j] / |k[j]|` over the positions `among` every row; it is no unit vector."""
    total = torch.zeros_like(keys[:, :, 0], dtype=torch.float32)
    for part in tiles(keys):
        unit = unit_keys(keys[:, :, part])
        total += unit.masked_fill(~among[:, None, part, None], 0).sum(2)
    return total / among.sum(-1).clamp(min=1)[:, None, None]


def along(
    keys: Float[Tensor, "B H T D"], direction: Float[Tensor, "B H D"]
) -> Float[Tensor, "B H T"]:
    """Return `k[j] . direction / |k[j]|`; equal keys have equal numbers, to the last digit."""
    products = [
        (unit_keys(keys[:, :, part]) * direction[:, :, None]).sum(-1) for part in tiles(keys)
    ]
    return torch.cat(products, -1) if products else keys[..., 0].float()


def unit_keys(keys: Float[Tensor, "B H t D"]) -> Float[Tensor, "B H t D"]:
    """Return keys of length one, in float32; zeros stay zeros."""
    return torch.nn.functional.normalize(keys.float(), dim=-1, eps=SHORTEST)


def tiles(entries: Float[Tensor, "B H T D"], copies: int = 1) -> Iterator[slice]:
    """Yield parts of the positions, small enough for so many copies in float32."""
    B, H, T, D = entries.shape
    most = TILE_ELEMENTS if entries.device.type == "cpu" else DEVICE_TILE_ELEMENTS
    step = max(1, most // max(1, B * H * D * copies))
    for start in range(0, T, step):
        yield slice(start, start + step)

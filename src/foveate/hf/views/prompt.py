"""The placeholders of a batch of prompts: where those of pictures and of videos are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from foveate.errors import InputError

Positions = tuple[int, ...]
_IMAGE = ("image_token_id", "image_token_index")
_VIDEO = ("video_token_id", "video_token_index")


@dataclass(frozen=True)
class Prompts:
    """The positions of the placeholders, per row, in a batch as the model is given it."""

    images: tuple[Positions, ...]
    videos: tuple[Positions, ...]
    ids: Tensor

    @staticmethod
    def of(config: Any, inputs: Mapping[str, Any]) -> Prompts:
        """Return the placeholders of a batch; raises `InputError` if its ids did not come."""
        ids = inputs.get("input_ids")
        if not isinstance(ids, Tensor) or ids.ndim != 2:
            raise InputError(
                "no input_ids came, and where pictures are in a prompt is read from its ids; give "
                "the processor's input_ids [rows, tokens] beside inputs_embeds"
            )
        ids = ids.cpu()
        valid = torch.ones_like(ids, dtype=torch.bool)
        mask = inputs.get("attention_mask")
        if isinstance(mask, Tensor) and mask.shape == ids.shape:
            valid = mask.cpu() != 0
        images, videos = (
            tuple(
                tuple((row & seen).nonzero().flatten().tolist())
                for row, seen in zip(_marked(config, ids, names), valid, strict=True)
            )
            for names in (_IMAGE, _VIDEO)
        )
        return Prompts(images, videos, ids)


def _marked(config: Any, ids: Tensor, names: tuple[str, ...]) -> Tensor:
    """Return where ids are those that the config gives one of these names."""
    found = {getattr(config, name, None) for name in names}
    wanted = [value for value in found if isinstance(value, int) and value >= 0]
    return torch.isin(ids, torch.tensor(wanted, dtype=ids.dtype))


def runs(positions: Positions) -> list[Positions]:
    """Return positions as runs of neighbours.

    >>> runs((3, 4, 7))
    [(3, 4), (7,)]
    """
    found: list[list[int]] = []
    for at in positions:
        if found and found[-1][-1] == at - 1:
            found[-1].append(at)
        else:
            found.append([at])
    return [tuple(run) for run in found]

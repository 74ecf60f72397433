"""What the calls on a cache said about the pictures of their prompts: ids, grids and sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from foveate.errors import InputError
from foveate.hf.views import check_sizes, pictures
from foveate.picture import Picture

NOTED = (
    "image_grid_thw", "video_grid_thw", "second_per_grid_ts", "image_sizes", "batch_num_images",
    "image_merge_sizes",
)  # fmt: skip
NOTHING = -1  # the id of positions that no call spoke of


@dataclass(frozen=True, eq=False)
class Scene:
    """The ids of a conversation, and for every turn where it began and what came beside the ids.

    `rows` says which row of the ids each row of the cache is: copies, or some of them.
    """

    ids: Tensor | None = None
    turns: tuple[tuple[int, Mapping[str, Any]], ...] = ()
    rows: tuple[int, ...] | None = None
    config: Any = None  # of the model, in a scene that is at rest

    def note(self, given: Mapping[str, Any], seen: int, stop: int | None) -> Scene:
        """Return the scene with a call on a cache that has seen so many tokens.

        The call's ids end before position `stop`; None: they are those of the whole prompt.
        """
        ids = given.get("input_ids")
        beside = {name: given[name] for name in NOTED if given.get(name) is not None}
        turns = (*self.turns, (seen, beside)) if seen else ((0, beside),)
        if not isinstance(ids, Tensor) or ids.ndim != 2:
            return replace(self, ids=None, turns=turns)
        mask = given.get("attention_mask")
        if isinstance(mask, Tensor) and mask.shape == ids.shape:
            ids = ids.masked_fill(mask == 0, NOTHING)
        start = 0 if stop is None else max(stop - ids.shape[1], 0)
        if not start:
            return replace(self, ids=ids, turns=turns, rows=None)
        before = self._before(len(ids), start, ids)
        whole = None if before is None else torch.cat([before, ids], 1)
        return replace(self, ids=whole, turns=turns, rows=None)

    def _before(self, rows: int, start: int, like: Tensor) -> Tensor | None:
        """Return the ids of the first `start` positions, None where there are not so many rows."""
        if self.ids is None:
            return None
        ids = self.ids[:, :start]
        if self.rows is not None:
            ids = ids[list(self.rows)]
        if len(ids) != rows:
            return None
        return torch.nn.functional.pad(ids.to(like), (0, start - ids.shape[1]), value=NOTHING)

    def take(self, rows: Sequence[int], total: int) -> Scene:
        """Return the scene of some rows of a cache that has had `total` of them."""
        if self.ids is None:
            return self
        copies = max(total // len(self.ids), 1)
        known = self.rows or tuple(row // copies for row in range(total))
        return replace(self, rows=tuple(known[row] for row in rows))

    def crop(self, length: int) -> Scene:
        """Return the scene without the positions from `length` on."""
        turns = tuple(turn for turn in self.turns if turn[0] < length)
        return replace(self, ids=None if self.ids is None else self.ids[:, :length], turns=turns)

    def at_rest(self, config: Any, total: int) -> Scene:
        """Return the scene of a cache of `total` rows on the processor, to be kept in a report."""
        turns = tuple(
            (seen, {k: v.cpu() if isinstance(v, Tensor) else v for k, v in beside.items()})
            for seen, beside in self.turns
        )
        ids = None if self.ids is None else self.ids.cpu()
        return replace(self.take(range(total), total), ids=ids, turns=turns, config=config)

    def pictures(
        self, row: int, sizes: Sequence[tuple[int, int]] | None, processor: Any
    ) -> tuple[Picture, ...]:
        """Return where on its pictures the visual tokens of one row of the cache are.

        Raises `InputError` where that cannot be known.
        """
        if self.rows is not None:
            if not -len(self.rows) <= row < len(self.rows):
                raise InputError(f"row {row} was asked for, and the cache has {len(self.rows)}")
            row = self.rows[row]
        beside: Mapping[str, Any] = next((one for _, one in reversed(self.turns) if one), {})
        given = {"input_ids": self.ids, **beside}
        if len(self.turns) < 2 or self.ids is None:
            return pictures(self.config, given, sizes, row, processor=processor)
        try:
            return pictures(self.config, given, sizes, row, processor=processor)
        except InputError:  # what came beside the ids was of each turn's own pictures
            return _sized(self._by_turns(self.ids, row, processor), sizes)

    def _by_turns(self, ids: Tensor, row: int, processor: Any) -> tuple[Picture, ...]:
        """Return the pictures of one turn after the other."""
        found: tuple[Picture, ...] = ()
        stops = [seen for seen, _ in self.turns[1:]] + [ids.shape[1]]
        for (start, beside), stop in zip(self.turns, stops, strict=True):
            mine = torch.full_like(ids, NOTHING)
            mine[:, start:stop] = ids[:, start:stop]
            given = {"input_ids": mine, **beside}
            found += pictures(self.config, given, row=row, processor=processor)
        return found


def _sized(
    found: tuple[Picture, ...], sizes: Sequence[tuple[int, int]] | None
) -> tuple[Picture, ...]:
    """Return the pictures with the sizes of those that are no videos."""
    if sizes is None:
        return found
    check_sizes(sizes, sum(not one.video for one in found))
    left = iter(sizes)
    return tuple(one if one.video else replace(one, size=next(left)) for one in found)

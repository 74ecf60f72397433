"""Flat tensors of entries, one run for every row and head: what costs exactly what it holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from foveate.kernels.compact import compact
from foveate.kernels.ragged_attention import Layout
from foveate.types import Bool, Float, Int

__all__ = ["Segments"]


@dataclass(frozen=True, eq=False)
class Segments:
    """Kept keys and values of all rows and heads, one behind the other, each by position.

    Those of row b and head h lie between `offsets[b * H + h]` and the offset behind it. `state`
    holds further numbers of every entry. A value: nothing in it is ever changed.
    """

    keys: Float[Tensor, "S D"]
    values: Float[Tensor, "S Dv"]
    positions: Int[Tensor, " S"]  # int32
    offsets: Int[Tensor, " n"]  # B * H + 1
    heads: int
    state: Mapping[str, Float[Tensor, " S"]] = field(default_factory=dict)

    @staticmethod
    def of(
        keys: Float[Tensor, "B H T D"],
        values: Float[Tensor, "B H T Dv"],
        keep: Bool[Tensor, "B H T"],
        positions: Int[Tensor, "b h T"],
        state: Mapping[str, Float[Tensor, "x y T"]] | None = None,
    ) -> Segments:
        """Return the named entries, with their positions and numbers."""
        chosen = keep.reshape(-1).nonzero().flatten()
        counts = keep.sum(-1).flatten()
        return Segments(
            *compact(keys, values, chosen),
            positions.expand_as(keep).reshape(-1)[chosen].int(),
            _offsets(counts),
            keep.shape[1],
            {n: x.expand(keep.shape).reshape(-1)[chosen] for n, x in (state or {}).items()},
        )

    def contents(self) -> tuple[Float[Tensor, "S D"], Float[Tensor, "S Dv"]]:
        """Return the keys and values."""
        return self.keys, self.values

    @property
    def rows(self) -> int:
        """Return the rows of the batch."""
        return (len(self.offsets) - 1) // self.heads

    @cached_property
    def layout(self) -> Layout:
        """Return the lengths as attention wants to know them; waits for the device once."""
        return Layout.of(self.offsets)

    @cached_property
    def longest(self) -> int:
        """Return the entries of the longest head."""
        return self.layout.longest

    @property
    def counts(self) -> Int[Tensor, " m"]:
        """Return how many entries every row and head has, m = B * H."""
        return self.offsets.diff()

    @property
    def nbytes(self) -> int:
        """Return the bytes of keys and values, whole storages counted."""
        return _held(self.keys, self.values)

    @property
    def metadata_nbytes(self) -> int:
        """Return the bytes of positions, offsets, layout and state."""
        return self.layout.nbytes + _held(self.positions, self.offsets, *self.state.values())

    def row_numbers(self) -> Int[Tensor, " S"]:
        """Return the row of the batch that every entry belongs to."""
        counts = self.counts.view(self.rows, self.heads).sum(-1)
        rows = torch.arange(self.rows, device=counts.device)
        return rows.repeat_interleave(counts, output_size=len(self.keys))

    @property
    def packed_positions(self) -> Int[Tensor, "B H P"]:
        """Return the position of every slot, -1 where it is empty."""
        return self.padded(self.positions, self.slots(), -1).long()

    def slots(self) -> Int[Tensor, "B H P"]:
        """Return the entry in every slot, right-aligned; -1 where a head has no more."""
        start, stop = self.offsets[:-1, None], self.offsets[1:, None]
        entry = stop - self.longest + torch.arange(self.longest, device=start.device)
        return torch.where(entry >= start, entry, -1).view(self.rows, self.heads, self.longest)

    def padded(self, entries: Tensor, slots: Int[Tensor, "B H P"], empty: int = 0) -> Tensor:
        """Return flat entries [S, ...] in slots [B, H, P, ...], `empty` where there is none."""
        if not len(entries):
            return entries.new_full((*slots.shape, *entries.shape[1:]), empty)
        hidden = (slots < 0).view(*slots.shape, *[1] * (entries.ndim - 1))
        return entries[slots.clamp(min=0)].masked_fill(hidden, empty)

    def filtered(self, keep: Bool[Tensor, " S"]) -> Segments:
        """Return the entries that are named."""
        counted = torch.nn.functional.pad(keep.cumsum(0), (1, 0))
        return self._picked(keep.nonzero().flatten(), counted[self.offsets])

    def taken(self, rows: Int[Tensor, " b"]) -> Segments:
        """Return the runs of the named rows, in that order; a row may be named twice."""
        starts = self.offsets[:-1].view(-1, self.heads)[rows].flatten()
        counts = self.counts.view(-1, self.heads)[rows].flatten()
        offsets = _offsets(counts)
        size = int(offsets[-1])
        shift = (starts - offsets[:-1]).repeat_interleave(counts, output_size=size)
        return self._picked(torch.arange(size, device=shift.device) + shift, offsets)

    def _picked(self, entries: Int[Tensor, " k"], offsets: Int[Tensor, " n"]) -> Segments:
        """Return these entries, in runs of new lengths."""
        keys, values = self.contents()
        return Segments(
            keys.index_select(0, entries),
            values.index_select(0, entries),
            self.positions.index_select(0, entries),
            offsets,
            self.heads,
            {name: part[entries] for name, part in self.state.items()},
        )

    def moved(self, by: int) -> Segments:
        """Return the same entries, their positions counted from another start."""
        return self._changed(positions=self.positions + by) if by else self

    def with_state(self, state: Mapping[str, Float[Tensor, " S"]]) -> Segments:
        """Return the same entries with other numbers."""
        return self._changed(state=state)

    def numbered(self, names: Mapping[str, Tensor]) -> Segments:
        """Return the same entries with numbers of all these names, zeros where there are none."""
        size = len(self.keys)
        return self.with_state(
            {name: self.state.get(name, like.new_zeros(size)) for name, like in names.items()}
        )

    @staticmethod
    def stacked(parts: Sequence[Segments]) -> Segments:
        """Return the rows of several parts behind one another, without their numbers."""
        offsets = [parts[0].offsets]
        for part in parts[1:]:
            offsets.append(part.offsets[1:] + offsets[-1][-1])
        keys, values = zip(*[part.contents() for part in parts], strict=True)
        positions = torch.cat([part.positions for part in parts])
        return Segments(
            torch.cat(keys), torch.cat(values), positions, torch.cat(offsets), parts[0].heads
        )

    def _changed(self, **parts: Any) -> Segments:
        """Return the same runs with other parts; lengths that were looked at stay known."""
        made = replace(self, **parts)
        for name in {"layout", "longest"} & set(vars(self)):
            vars(made)[name] = vars(self)[name]
        return made

    @staticmethod
    def joined(parts: Sequence[Segments]) -> Segments:
        """Return the runs of several parts behind one another, head by head; copied once."""
        names = {name: numbers for part in parts for name, numbers in part.state.items()}
        parts = [part.numbered(names) for part in parts if len(part.keys)] or [
            parts[-1].numbered(names)
        ]
        if len(parts) == 1:
            return parts[0]
        counts = [part.counts for part in parts]
        total = torch.stack(counts).sum(0)
        offsets = _offsets(total)
        places, begin = [], offsets[:-1]
        for part, count in zip(parts, counts, strict=True):
            shift = (begin - part.offsets[:-1]).repeat_interleave(count, output_size=len(part.keys))
            places.append(torch.arange(len(part.keys), device=shift.device) + shift)
            begin = begin + count

        def join(columns: Sequence[Tensor]) -> Tensor:
            whole = columns[0].new_empty(sum(map(len, columns)), *columns[0].shape[1:])
            for place, column in zip(places, columns, strict=True):
                whole.index_copy_(0, place, column)
            return whole

        keys, values = zip(*[part.contents() for part in parts], strict=True)
        return Segments(
            join(keys),
            join(values),
            join([part.positions for part in parts]),
            offsets,
            parts[0].heads,
            {name: join([part.state[name] for part in parts]) for name in names},
        )


def _offsets(counts: Int[Tensor, " m"]) -> Int[Tensor, " n"]:
    """Return where runs of these lengths begin, and where the last one ends."""
    return torch.nn.functional.pad(counts.cumsum(0), (1, 0))


def _held(*tensors: Tensor) -> int:
    """Return the bytes of the storages behind tensors."""
    return sum(tensor.untyped_storage().nbytes() for tensor in tensors)

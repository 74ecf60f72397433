"""How a flat prefix is cut into pieces: what a caller can keep between steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from foveate.types import Int

__all__ = ["PIECE_TOKENS", "Layout", "Piece", "Places"]

PIECE_TOKENS = 1 << 14  # tokens read once per query head of a group: what fits a processor's cache


class Places(NamedTuple):
    """The offsets of several segments in their piece, and where each token lies in a padded table.

    The table is [segments of the piece, width of the piece].
    """

    ends: Int[Tensor, " m"]
    slots: Int[Tensor, " n"]


class Piece(NamedTuple):
    """Segments `first` to `last`, which are the tokens `start` to `stop`, at most `width` each.

    `places` are known where there are several.
    """

    first: int
    last: int
    start: int
    stop: int
    width: int
    places: Places | None = None


@dataclass(frozen=True, eq=False)
class Layout:
    """The lengths of all segments, read once and kept on the host.

    Made once per packing, it spares every step from reading the offsets. Beside them it holds four
    bytes per token and four per segment on a CPU, and nothing on a device.
    """

    segments: tuple[Piece, ...]
    runs: tuple[Piece, ...]  # the same segments, several together where products allow it

    @staticmethod
    def of(offsets: Int[Tensor, " n"]) -> Layout:
        """Return the layout of segments with these offsets; waits for the device once."""
        bounds = offsets.tolist()
        segments = tuple(
            Piece(i, i + 1, start, stop, stop - start)
            for i, (start, stop) in enumerate(pairwise(bounds))
        )
        on_cpu = offsets.device.type == "cpu"
        return Layout(segments, tuple(joined(segments, offsets)) if on_cpu else segments)

    @property
    def longest(self) -> int:
        """Return the length of the longest segment."""
        return max((piece.width for piece in self.segments), default=0)

    @property
    def nbytes(self) -> int:
        """Return the bytes of what says where tokens lie."""
        held = [part for piece in self.runs for part in piece.places or ()]
        return sum(part.untyped_storage().nbytes() for part in held)


def joined(segments: tuple[Piece, ...], offsets: Int[Tensor, " n"]) -> Iterator[Piece]:
    """Yield runs of segments of at most `PIECE_TOKENS` together, but at least one segment."""
    first = 0
    while first < len(segments):
        last, start = first + 1, segments[first].start
        while last < len(segments) and segments[last].stop - start <= PIECE_TOKENS:
            last += 1
        yield segments[first] if last == first + 1 else run(segments[first:last], offsets)
        first = last


def run(segments: tuple[Piece, ...], offsets: Int[Tensor, " n"]) -> Piece:
    """Return several segments as one piece."""
    first, last = segments[0].first, segments[-1].last
    start, stop = segments[0].start, segments[-1].stop
    width = max(piece.width for piece in segments)
    ends = offsets[first : last + 1] - start
    shift = torch.arange(last - first) * width - ends[:-1]
    slots = torch.arange(stop - start) + shift.repeat_interleave(ends.diff())
    return Piece(first, last, start, stop, width, Places(ends.int(), slots.int()))

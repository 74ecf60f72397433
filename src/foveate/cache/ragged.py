"""Ragged storage: every row and head costs exactly what it keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from foveate.cache.dense import Dense, owned, packed_state
from foveate.cache.quantized import Codec, Encoded
from foveate.cache.segments import Segments
from foveate.errors import CacheError
from foveate.types import Bool, Float, Int, LayerKV

__all__ = ["Ragged"]


class Ragged:
    """The stored keys and values of one layer: a flat prefix without padding, then a dense tail.

    The prefix holds what survived compression, and decoding never moves it. The tail holds every
    token from `base` on: first those of sealed turns, which wait for the next pack, then those from
    `start` on. Numbers of the prefix lie in it, `state` holds those of the tail.
    """

    def __init__(
        self, prefix: Segments, keys: Tensor, values: Tensor, codec: Codec | None = None
    ) -> None:
        self.codec = codec  # of the prefix
        self.prefix = self._encoded(prefix)
        self.keys, self.values = keys, values  # [B, H, t, D], the tail
        self.state: dict[str, Tensor] = {}  # each [B, H, l], l <= t
        self.planned: Tensor | None = None  # [B, H], what the first prompt kept
        self.base = self.start = self.seen = 0
        self.released = 0  # slots that the tail lacks: others hold what may be kept of them
        self._origins = list(range(len(keys)))  # which row every row's prefix was packed as

    @property
    def name(self) -> str:
        """Return what reports call this form."""
        return "ragged" if self.codec is None else f"ragged {self.codec.name}"

    @staticmethod
    def of(store: Dense, codec: Codec | None = None) -> Ragged:
        """Return what a dense storage holds, its prefix without padding, encoded if `codec` is."""
        keys, values = store.slots()
        P = store.prefix
        B, H = keys.shape[:2]
        logical = store.logical()[:, :, :P]
        numbers = store.numbers()
        prefix = Segments.of(
            keys[:, :, :P],
            values[:, :, :P],
            (logical >= 0).expand(B, H, P),
            logical,
            {name: part[..., :P] for name, part in numbers.items()},
        )
        made = Ragged(prefix, owned(keys[:, :, P:]), owned(values[:, :, P:]), codec)
        made.state = {name: owned(part[..., P:]) for name, part in numbers.items()}
        made.planned, made.base, made.start = store.planned, store.start, store.start
        made.seen, made.released = store.seen, store.released
        return made

    @property
    def stored(self) -> int:
        """Return the slots of the longest head."""
        return self.prefix.longest + self.keys.shape[-2]

    @property
    def compressed(self) -> bool:
        """Return whether anything was evicted, so that slots and positions differ."""
        return True

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Return rows, key-value heads, width of keys and width of values: (B, H, D, Dv)."""
        return self.keys.shape[0], self.keys.shape[1], self.keys.shape[3], self.values.shape[3]

    @property
    def dtype(self) -> torch.dtype:
        """Return the type of the keys and values that attention sees."""
        return self.keys.dtype

    @property
    def device(self) -> torch.device | None:
        """Return where the keys are."""
        return self.keys.device

    @property
    def nbytes(self) -> int:
        """Return the bytes that the stored keys and values really hold, whole storages counted."""
        tail = self.keys.untyped_storage().nbytes() + self.values.untyped_storage().nbytes()
        return self.prefix.nbytes + tail

    @property
    def metadata_nbytes(self) -> int:
        """Return the bytes of what says where the stored tokens belong, and of the state."""
        state = sum(part.untyped_storage().nbytes() for part in self.state.values())
        return self.prefix.metadata_nbytes + state

    def append(
        self, keys: Float[Tensor, "B H T D"], values: Float[Tensor, "B H T Dv"]
    ) -> tuple[Tensor, Tensor]:
        """Store new tokens behind the tail and return the tail; the prefix stays where it is."""
        self.keys = torch.cat([self.keys, keys], -2)
        self.values = torch.cat([self.values, values], -2)
        self.seen += keys.shape[-2]
        return self.keys, self.values

    def tail(self, stop: int) -> tuple[Float[Tensor, "B H T D"], Float[Tensor, "B H T Dv"]]:
        """Return the tail's keys and values from `start` up to logical position `stop`."""
        part = slice(self.start - self.base, stop - self.base)
        return self.keys[:, :, part], self.values[:, :, part]

    def release(self, stop: int) -> None:
        """Let go of the tail up to position `stop`; what is kept of it comes with `pack`."""
        first, gone = self.start - self.base, stop - self.start - self.released
        keys, values = self.keys, self.values
        self.keys = torch.cat([keys[:, :, :first], keys[:, :, first + gone :]], -2)
        self.values = torch.cat([values[:, :, :first], values[:, :, first + gone :]], -2)
        self.released += gone

    def pack(self, kept: LayerKV | Segments, stop: int) -> None:
        """Replace the tail up to position `stop` by what was kept of it, and free the rest.

        Sealed turns go into the prefix with it, whole.
        """
        if isinstance(kept, LayerKV):
            positions = kept.packed_positions
            kept = Segments.of(kept.packed_keys, kept.packed_values, positions >= 0, positions)
        B, H, sealed = *self.keys.shape[:2], self.start - self.base
        whole = torch.ones(B, H, sealed, dtype=torch.bool, device=self.keys.device)
        parts = [self.prefix, self._of_tail(whole), kept.moved(self.start)]
        self.prefix = self._encoded(Segments.joined(parts))
        self._cut(stop - self.base - self.released, None)
        self.base = self.start = stop
        self.released = 0
        self._origins = list(range(len(self.keys)))

    def seal(self, stop: int) -> None:
        """Count the tail up to logical position `stop` as prefix, every token of it kept."""
        self.start = stop

    def note(
        self,
        planned: Int[Tensor, "B H"],
        state: Mapping[str, Tensor],
        order: Int[Tensor, "B H K"] | None,
    ) -> None:
        """Remember how much the first prompt kept, and the state of what it kept, in slot order."""
        if self.planned is not None:
            return
        self.planned = planned
        if order is None:
            self.state, self.prefix = dict(state), self.prefix.numbered(state)
            return
        flat = {name: part[order >= 0] for name, part in packed_state(state, order).items()}
        self.prefix = self.prefix.with_state(flat)
        self.state = {name: owned(part[..., :0]) for name, part in state.items()}

    def slots(self) -> tuple[Float[Tensor, "B H L D"], Float[Tensor, "B H L Dv"]]:
        """Return all stored keys and values in slots; empty ones hold zeros."""
        slots = self.prefix.slots()
        keys, values = (self.prefix.padded(part, slots) for part in self.prefix.contents())
        return torch.cat([keys, self.keys], -2), torch.cat([values, self.values], -2)

    def logical(self) -> Int[Tensor, "B h L"]:
        """Return the position of every slot, -1 where it is empty."""
        prefix = self.prefix.packed_positions
        tail = torch.arange(self.base, self.seen, device=prefix.device)
        return torch.cat([prefix, tail.expand(*prefix.shape[:2], -1)], -1)

    def numbers(self) -> dict[str, Float[Tensor, "B H L"]]:
        """Return the state of all slots."""
        slots, tail = self.prefix.slots(), self.keys.shape[-2]
        heads = slots.shape[1]
        return {
            name: torch.cat(
                [
                    self.prefix.padded(part, slots),
                    torch.nn.functional.pad(
                        self.state[name], (0, tail - self.state[name].shape[-1])
                    ).expand(-1, heads, -1),
                ],
                -1,
            )
            for name, part in self.prefix.state.items()
        }

    def summary(self, keep: Bool[Tensor, "B H L"]) -> Int[Tensor, " 4"]:
        """Return four numbers about what is kept, for `retain`, where they may be waited for.

        The fewest and the most slots of a head, whether all heads keep the same (never asked
        here), whether any goes.
        """
        counts, goes = keep.sum(-1), (~keep & (self.logical() >= 0)).any()
        return torch.stack([counts.min(), counts.max(), counts.new_zeros(()), goes.long()])

    def retain(
        self,
        keep: Bool[Tensor, "B H L"],
        state: Mapping[str, Tensor],
        summary: Sequence[int] | None = None,
    ) -> None:
        """Free every slot that is not kept; what stays is prefix then, with its new state."""
        goes = (self.summary(keep).tolist() if summary is None else summary)[3]
        P, filled = self.prefix.longest, self.prefix.slots() >= 0
        state = {name: part.expand(keep.shape) for name, part in state.items()}
        prefix = self.prefix.with_state({n: x[..., :P][filled] for n, x in state.items()})
        self.state = {name: owned(part[..., P:]) for name, part in state.items()}
        self._origins = list(range(len(keep)))  # beams have numbers of their own now
        if not goes:
            self.prefix = prefix
            return
        tail = self._of_tail(keep[..., P:])
        self.prefix = self._encoded(Segments.joined([prefix.filtered(keep[..., :P][filled]), tail]))
        self._cut(self.keys.shape[-2], None)
        self.base = self.start = self.seen

    def crop(self, length: int) -> None:
        """Forget every token from logical position `length` on; what was evicted stays evicted."""
        if length >= self.seen:
            return
        if length < self.base:
            self.prefix = self.prefix.filtered(self.prefix.positions < length)
        self._cut(None, max(length - self.base, 0))
        self.base, self.start = min(self.base, length), min(self.start, length)
        self.seen = length

    def take(self, rows: Int[Tensor, " b"]) -> None:
        """Keep the named rows of the batch, in that order; a row may be named twice.

        The prefix stays where it is if every row's is the one it has: beams of one prompt.
        """
        origins = [self._origins[row] for row in rows.tolist()]
        rows = rows.to(self.keys.device)
        self.keys, self.values = self.keys[rows], self.values[rows]
        self.state = {name: part[rows] for name, part in self.state.items()}
        self.planned = None if self.planned is None else self.planned[rows]
        if origins != self._origins:
            self.prefix, self._origins = self.prefix.taken(rows), origins

    def whole(self) -> Segments:
        """Return all that is stored, the tail behind the prefix."""
        keep = torch.ones(self.keys.shape[:3], dtype=torch.bool, device=self.keys.device)
        return Segments.joined([self.prefix, self._of_tail(keep)])

    def clear(self) -> None:
        """Forget everything."""
        self.crop(0)
        self.planned = None

    def check(self) -> None:
        """Raise `CacheError` if positions are not ascending or lengths do not agree."""
        prefix, B, H = self.prefix, *self.keys.shape[:2]
        first = torch.zeros(len(prefix.keys) + 1, dtype=torch.bool, device=prefix.keys.device)
        first[prefix.offsets] = True
        rising = prefix.positions.diff() > 0
        if not bool((rising | first[1:-1]).all()) or bool((prefix.positions >= self.base).any()):
            raise CacheError("positions are not ascending, or reach into the tail")
        lengths = [len(prefix.values), len(prefix.positions), int(prefix.offsets[-1])]
        if lengths != [len(prefix.keys)] * 3 or len(prefix.offsets) != B * H + 1:
            raise CacheError("keys, values, positions and offsets disagree in length")
        tail = self.seen - self.base
        if not self.base <= self.start <= self.seen or self.keys.shape[2] != tail:
            raise CacheError("the tail does not reach from its first position to the last one")

    def _encoded(self, prefix: Segments) -> Segments:
        """Return a prefix in the bits of this storage."""
        return prefix if self.codec is None else Encoded.by(self.codec, prefix)

    def _of_tail(self, keep: Bool[Tensor, "B H T"]) -> Segments:
        """Return the named tokens among the tail's first T, with their numbers."""
        T = keep.shape[-1]
        positions = torch.arange(self.base, self.base + T, device=keep.device)
        state = {
            name: torch.nn.functional.pad(part[..., :T], (0, T - part[..., :T].shape[-1]))
            for name, part in self.state.items()
        }
        return Segments.of(
            self.keys[:, :, :T], self.values[:, :, :T], keep, positions[None, None], state
        )

    def _cut(self, start: int | None, stop: int | None) -> None:
        """Keep a part of the tail, and no bytes of the rest."""
        part = slice(start, stop)
        self.keys, self.values = owned(self.keys[:, :, part]), owned(self.values[:, :, part])
        self.state = {name: owned(state[..., part]) for name, state in self.state.items()}

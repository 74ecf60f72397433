"""Dense storage: one tensor of keys and one of values per layer, empty slots where heads differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from foveate.errors import CacheError
from foveate.kernels.compact import compact
from foveate.types import Bool, Float, Int, LayerKV


class Dense:
    """The stored keys and values of one layer: a packed prefix with positions, then a plain tail.

    The prefix holds what survived compression, right-aligned and by ascending position; slots that
    a row or head does not fill have position -1. The tail holds every token from `start` on.
    `seen` counts logical tokens, `stored` physical slots. Methods that evict while decoding keep
    numbers beside the slots in `state`; newer slots have zeros.
    """

    name = "dense"

    def __init__(self) -> None:
        self.keys: Tensor | None = None  # [B, H, L, D]
        self.values: Tensor | None = None
        self.positions: Tensor | None = None  # [B, 1 or H, P], None while nothing was evicted
        self.state: dict[str, Tensor] = {}  # each [B, H, l], l <= L
        self.planned: Tensor | None = None  # [B, H], what the first prompt kept
        self.start = 0
        self.seen = 0
        self.released = 0  # slots that the tail lacks: others hold what may be kept of them
        self._asked: Tensor | None = None
        self._answer = True

    @property
    def stored(self) -> int:
        """Return the physical length."""
        return 0 if self.keys is None else self.keys.shape[-2]

    @property
    def prefix(self) -> int:
        """Return how many slots lie before the tail."""
        return self.stored - (self.seen - self.start - self.released)

    @property
    def compressed(self) -> bool:
        """Return whether anything was evicted, so that slots and positions differ."""
        return self.positions is not None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Return rows, key-value heads, width of keys and width of values: (B, H, D, Dv)."""
        keys, values = self.slots()
        return keys.shape[0], keys.shape[1], keys.shape[3], values.shape[3]

    @property
    def dtype(self) -> torch.dtype:
        """Return the type of the keys and values that attention sees."""
        return self.slots()[0].dtype

    @property
    def device(self) -> torch.device | None:
        """Return where the keys are, or None while nothing is stored."""
        return None if self.keys is None else self.keys.device

    def append(
        self, keys: Float[Tensor, "B H T D"], values: Float[Tensor, "B H T Dv"]
    ) -> tuple[Tensor, Tensor]:
        """Store new tokens behind the tail and return all stored keys and values."""
        if self.keys is None or self.values is None:
            self.keys, self.values = owned(keys), owned(values)
        else:
            self.keys = torch.cat([self.keys, keys], -2)
            self.values = torch.cat([self.values, values], -2)
        self.seen += keys.shape[-2]
        return self.keys, self.values

    def tail(self, stop: int) -> tuple[Float[Tensor, "B H T D"], Float[Tensor, "B H T Dv"]]:
        """Return the tail's keys and values up to logical position `stop`."""
        keys, values = self.slots()
        part = slice(self.prefix, self.prefix + stop - self.start)
        return keys[:, :, part], values[:, :, part]

    def slots(self) -> tuple[Float[Tensor, "B H L D"], Float[Tensor, "B H L Dv"]]:
        """Return all stored keys and values in slots; empty ones hold zeros."""
        if self.keys is None or self.values is None:
            raise CacheError(
                "this layer has stored nothing yet; run the prompt through the model first"
            )
        return self.keys, self.values

    def release(self, stop: int) -> None:
        """Let go of the tail up to position `stop`; what is kept of it comes with `pack`."""
        keys, values = self.slots()
        P, gone = self.prefix, stop - self.start - self.released
        self.keys = torch.cat([keys[:, :, :P], keys[:, :, P + gone :]], -2)
        self.values = torch.cat([values[:, :, :P], values[:, :, P + gone :]], -2)
        self.released += gone

    def pack(self, kept: LayerKV, stop: int) -> None:
        """Replace the tail up to position `stop` by what was kept of it, and free the rest."""
        assert self.keys is not None and self.values is not None
        B, P = len(self.keys), self.prefix
        behind = P + stop - self.start - self.released
        positions = kept.packed_positions
        positions = torch.where(positions >= 0, positions + self.start, -1)
        if bool((positions == positions[:, :1]).all()):
            positions = positions[:, :1]
        if P:
            before = self.logical()[:, :, :P]
            heads = max(before.shape[1], positions.shape[1])
            positions = torch.cat([before.expand(B, heads, -1), positions.expand(B, heads, -1)], -1)
        whole = P == 0 and behind == self.stored  # then nothing is left of what was there
        self.keys, self.values = (
            owned(new) if whole else torch.cat([old[:, :, :P], new, old[:, :, behind:]], -2)
            for old, new in ((self.keys, kept.packed_keys), (self.values, kept.packed_values))
        )
        self.positions, self.start, self.released = positions.contiguous(), stop, 0

    def seal(self, stop: int) -> None:
        """Count the tail up to logical position `stop` as prefix, every token of it kept."""
        if self.positions is not None:
            tail = torch.arange(self.start, stop, device=self.positions.device)
            tail = tail.expand(*self.positions.shape[:2], -1)
            self.positions = torch.cat([self.positions, tail], -1)
        self.start = stop

    def note(
        self,
        planned: Int[Tensor, "B H"],
        state: Mapping[str, Tensor],
        order: Int[Tensor, "B H K"] | None,
    ) -> None:
        """Remember how much the first prompt kept, and the state of what it kept, in slot order."""
        if self.planned is None:
            self.planned = planned
            self.state = dict(state) if order is None else packed_state(state, order)

    def numbers(self) -> dict[str, Float[Tensor, "B H L"]]:
        """Return the state of all slots."""
        width = self.stored
        return {
            name: torch.nn.functional.pad(part, (0, width - part.shape[-1]))
            for name, part in self.state.items()
        }

    def summary(self, keep: Bool[Tensor, "B H L"]) -> Int[Tensor, " 4"]:
        """Return four numbers about what is kept, for `retain`, where they may be waited for.

        The fewest and the most slots of a head, whether all heads keep the same, whether any goes.
        """
        counts, logical = keep.sum(-1), self.logical()
        alike = (keep == keep[:, :1]).all() if logical.shape[1] == 1 else counts.new_zeros(())
        goes = (~keep & (logical >= 0)).any()
        return torch.stack([counts.min(), counts.max(), alike.long(), goes.long()])

    def retain(
        self,
        keep: Bool[Tensor, "B H L"],
        state: Mapping[str, Tensor],
        summary: Sequence[int] | None = None,
    ) -> None:
        """Free every slot that is not kept; what stays is prefix then, with its new state.

        `keep` names no empty slot. `summary` is what `summary` says of it.
        """
        assert self.keys is not None and self.values is not None
        B, H, L = keep.shape
        least, most, alike, goes = self.summary(keep).tolist() if summary is None else summary
        if not goes and most == L:
            self.state = {name: part.expand(B, H, L) for name, part in state.items()}
            return
        logical = self.logical()
        kept = keep[:, :1] if alike else keep
        order = kept.byte().argsort(dim=-1, stable=True)[..., L - most :]
        positions = logical.expand(B, kept.shape[1], L).gather(-1, order)
        if least < most:
            empty = ~kept.gather(-1, order)
            positions, order = positions.masked_fill(empty, -1), order.masked_fill(empty, -1)
        order = order.expand(B, H, most)
        heads = torch.arange(B * H, device=order.device).view(B, H, 1)
        slots = torch.where(order >= 0, heads * L + order, -1)
        self.keys, self.values = compact(self.keys, self.values, slots)
        self.state = packed_state(state, order)
        self.positions, self.start = positions, self.seen
        self._asked, self._answer = positions, least == most

    def logical(self) -> Int[Tensor, "B h L"]:
        """Return the position of every slot, -1 where it is empty; h is 1 if heads agree."""
        if self.positions is None:
            return torch.arange(self.seen, device=self.device).expand(self.shape[0], 1, -1)
        return with_tail(self.positions, self.start, self.seen)

    def is_gapless(self) -> bool:
        """Return whether every slot is filled; looked at once per layout, for that costs a wait."""
        if self.positions is None:
            return True
        if self._asked is not self.positions:
            self._asked, self._answer = self.positions, bool((self.positions >= 0).all())
        return self._answer

    def crop(self, length: int) -> None:
        """Forget every token from logical position `length` on; what was evicted stays evicted."""
        if length >= self.seen or self.keys is None or self.values is None:
            return
        slots = self.stored - (self.seen - max(length, self.start))
        if length < self.start and self.positions is not None:
            positions = torch.where(self.positions < length, self.positions, -1)
            used = (positions >= 0).flatten(0, 1).any(0).nonzero()
            slots = int(used[-1]) + 1 if used.numel() else 0
            self.positions = positions[:, :, :slots].contiguous()
        elif length < self.start:
            slots = length
        self.keys, self.values = _cut(self.keys, slots), _cut(self.values, slots)
        self.state = {name: part[..., :slots] for name, part in self.state.items()}
        self.start, self.seen = min(self.start, length), length

    def take(self, rows: Int[Tensor, " b"]) -> None:
        """Keep the named rows of the batch, in that order; a row may be named twice."""
        if self.keys is None or self.values is None:
            return
        rows = rows.to(self.keys.device)
        self.keys, self.values = self.keys[rows], self.values[rows]
        self.state = {name: part[rows] for name, part in self.state.items()}
        self.planned = None if self.planned is None else self.planned[rows]
        if self.positions is not None:
            gapless = self._asked is self.positions and self._answer
            self.positions = self.positions[rows]
            if gapless:
                self._asked = self.positions

    def clear(self) -> None:
        """Forget everything."""
        self.keys = self.values = self.positions = self.planned = None
        self.state = {}
        self.start = self.seen = self.released = 0

    @property
    def nbytes(self) -> int:
        """Return the bytes that the stored keys and values really hold, whole storages counted."""
        if self.keys is None or self.values is None:
            return 0
        return self.keys.untyped_storage().nbytes() + self.values.untyped_storage().nbytes()

    @property
    def metadata_nbytes(self) -> int:
        """Return the bytes of the stored positions and of the state beside the slots."""
        held = [self.positions, *self.state.values()]
        return sum(x.untyped_storage().nbytes() for x in held if x is not None)

    def check(self) -> None:
        """Raise `CacheError` if positions are not ascending or lengths do not agree."""
        if self.keys is None or self.values is None:
            return
        logical = self.logical()
        filled: Bool[Tensor, "B h L"] = logical >= 0
        highest = torch.where(filled, logical, -1).cummax(-1).values
        rising = logical[..., 1:] > highest[..., :-1]
        if not bool((rising | ~filled[..., 1:]).all()) or logical.shape[-1] != self.stored:
            raise CacheError("positions are not ascending, or do not match the stored slots")
        if self.values.shape[:3] != self.keys.shape[:3] or self.prefix < 0:
            raise CacheError("keys and values disagree in length")


def packed_state(
    state: Mapping[str, Tensor], order: Int[Tensor, "B H K"]
) -> dict[str, Float[Tensor, "B H K"]]:
    """Return the state of the positions in `order`, zero where that is -1."""
    heads = order.shape[1]
    return {
        name: part.expand(-1, heads, -1).gather(-1, order.clamp(min=0)).masked_fill(order < 0, 0)
        for name, part in state.items()
    }


def with_tail(positions: Int[Tensor, "B h P"], start: int, seen: int) -> Int[Tensor, "B h L"]:
    """Return the positions of a prefix and of the tail behind it."""
    tail = torch.arange(start, seen, device=positions.device)
    return torch.cat([positions, tail.expand(*positions.shape[:2], -1)], -1)


def _cut(tensor: Tensor, slots: int) -> Tensor:
    """Return the first slots; as a slice only where that pins little (rejected drafts)."""
    part = tensor[:, :, :slots]
    needed = part.numel() * part.element_size()
    return part if needed * 16 > part.untyped_storage().nbytes() * 15 else part.clone()


def owned(tensor: Tensor) -> Tensor:
    """Return a tensor that holds no more than itself: fused projections hand out slices."""
    held = tensor.untyped_storage().nbytes()
    return tensor if held == tensor.numel() * tensor.element_size() else tensor.clone()

"""Static storage: buffers with room behind what is stored, so that a decoding step can be compiled.

A compiled step may ask nothing of Python's numbers, for each new value would compile it anew. It
writes at `base + count` and sees the slots whose `since` is not above `count`, all of them tensors.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from foveate.cache.dense import Dense
from foveate.types import Bool, Float, Int

__all__ = ["Clock", "Room", "Static", "bucket"]

USUAL = 128  # tokens that a layer makes room for where nobody says how many will come
NEVER = torch.iinfo(torch.int32).max


class Count(NamedTuple):
    """The steps made since they were last prepared, and the tokens before the first of them."""

    made: Int[Tensor, " 1"]
    before: Int[Tensor, " 1"]


class Clock:
    """What all layers of a cache count in common: the steps, on every device that stores some."""

    def __init__(self) -> None:
        self.ahead = USUAL
        self._counts: dict[torch.device, Count] = {}

    def expect(self, tokens: int | None) -> None:
        """State how many tokens decoding may add; None where nobody knows."""
        self.ahead = USUAL if tokens is None else tokens

    def on(self, device: torch.device) -> Count:
        """Return the count on a device; it stays the same tensors for good."""
        if device not in self._counts:
            zero = torch.zeros(1, dtype=torch.long, device=device)
            self._counts[device] = Count(fixed(zero), fixed(zero.clone()))
        return self._counts[device]

    def restart(self, seen: int) -> None:
        """Begin to count behind `seen` tokens."""
        for made, before in self._counts.values():
            made.zero_()
            before.fill_(seen)

    def tick(self) -> None:
        """Count one step."""
        for made, _ in self._counts.values():
            made.add_(1)


@dataclass
class Room:
    """The buffers of one layer, C slots long, and what a compiled step reads beside them."""

    keys: Float[Tensor, "B H C D"]
    values: Float[Tensor, "B H C Dv"]
    since: Int[Tensor, "B h C"]  # the step from which on a slot is seen
    base: Int[Tensor, " 1"]  # the slot of the first step
    count: Count
    ready: bool = False  # since and base say what is stored now


class Static(Dense):
    """Dense storage that has room behind its slots once a prompt is packed.

    Until then, and wherever slots are taken away or rows are chosen, it is `Dense`. Buffers are
    rounded up (`bucket`); tokens beyond them move everything once into larger ones.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = Clock() if clock is None else clock
        self.room: Room | None = None
        self._used = 0
        super().__init__()

    @property
    def name(self) -> str:  # type: ignore[override]
        """Return "static" while there is room behind the slots."""
        return "static" if self.room is not None else Dense.name

    @property
    def keys(self) -> Tensor | None:  # type: ignore[override]
        """Return the stored keys, a part of the buffer."""
        return self._keys if self.room is None else self.room.keys[:, :, : self._used]

    @keys.setter
    def keys(self, value: Tensor | None) -> None:
        if self.room is not None:
            self._values, self.room = self.values, None
        self._keys = value

    @property
    def values(self) -> Tensor | None:  # type: ignore[override]
        """Return the stored values, a part of the buffer."""
        return self._values if self.room is None else self.room.values[:, :, : self._used]

    @values.setter
    def values(self, value: Tensor | None) -> None:
        if self.room is not None:
            self._keys, self.room = self.keys, None
        self._values = value

    @property
    def metadata_nbytes(self) -> int:
        """Return the bytes of positions and state, and of what a compiled step reads."""
        beside = 0
        if self.room is not None:
            beside = sum(x.untyped_storage().nbytes() for x in (self.room.since, self.room.base))
        return super().metadata_nbytes + beside

    def reserve(self, tokens: int) -> None:
        """Make room for so many tokens more: free where there is, else one copy of all slots.

        What moves takes room for all that the clock expects, or for half as many as it has.
        """
        if self.device is None or (self.room is not None and self._used + tokens <= self.size):
            return
        keys, values = self.slots()
        used = keys.shape[2]
        more = max(tokens, self.clock.ahead, 0 if self.room is None else used // 2)
        size, heads = bucket(used + more), 1 if self.positions is None else self.positions.shape[1]
        with lasting():
            self.room = Room(
                keys=fixed(_widened(keys, size)),
                values=fixed(_widened(values, size)),
                since=fixed(keys.new_full((len(keys), heads, size), NEVER, dtype=torch.int32)),
                base=fixed(torch.zeros(1, dtype=torch.long, device=keys.device)),
                count=self.clock.on(keys.device),
            )
        self._keys = self._values = None
        self._used = used

    def append(
        self, keys: Float[Tensor, "B H T D"], values: Float[Tensor, "B H T Dv"]
    ) -> tuple[Tensor, Tensor]:
        """Store new tokens behind the tail and return all stored keys and values."""
        if self.room is None:
            return super().append(keys, values)
        tokens = keys.shape[2]
        if self._used + tokens > self.size:
            self.reserve(tokens)
        room, part = self.room, slice(self._used, self._used + tokens)
        room.keys[:, :, part], room.values[:, :, part] = keys, values
        self._used += tokens
        self.seen += tokens
        room.ready = False
        return self.slots()

    def crop(self, length: int) -> None:
        """Forget every token from logical position `length` on; what was evicted stays evicted."""
        if self.room is None or length < self.start:
            super().crop(length)
        elif length < self.seen:
            self._used -= self.seen - length
            self.seen, self.room.ready = length, False
            self.state = {name: part[..., : self._used] for name, part in self.state.items()}

    @property
    def is_ready(self) -> bool:
        """Return whether a step can be made as things are."""
        return self.room is not None and self.room.ready and self._used < self.size

    def prepare(self, mask: Tensor | None) -> None:
        """Say in tensors which slots there are; a mask [B, T] hides positions where it is zero."""
        assert self.room is not None
        room, logical = self.room, self.logical()
        shown = logical >= 0
        if mask is not None:
            mask = mask.to(logical.device)[:, None].expand(-1, logical.shape[1], -1)
            shown = shown & (mask.gather(-1, logical.clamp(min=0)) != 0)
        B, h = logical.shape[:2]
        later = torch.arange(self.size - self._used, dtype=torch.int32, device=logical.device)
        since = torch.where(shown, 0, NEVER).int()
        since = torch.cat([since, later.expand(B, h, -1)], -1)
        if room.since.shape == since.shape:
            room.since.copy_(since)
        else:
            with lasting():
                room.since = fixed(since.clone())
        room.base.fill_(self._used)
        room.ready = True

    def write(
        self, keys: Float[Tensor, "B H 1 D"], values: Float[Tensor, "B H 1 Dv"]
    ) -> tuple[Float[Tensor, "B H C D"], Float[Tensor, "B H C Dv"]]:
        """Write one token where the clock says, inside a compiled step, and return the buffers."""
        assert self.room is not None
        room = self.room
        at = room.base + room.count.made
        room.keys.index_copy_(2, at, keys)
        room.values.index_copy_(2, at, values)
        return room.keys, room.values

    def hidden(self) -> Bool[Tensor, "B h C"]:
        """Return which slots a compiled step does not see."""
        assert self.room is not None
        return self.room.since > self.room.count.made

    @property
    def size(self) -> int:
        """Return how many slots there are, filled or not."""
        assert self.room is not None
        return self.room.keys.shape[2]

    def position(self) -> Int[Tensor, ""]:
        """Return the logical length before a compiled step."""
        assert self.room is not None
        return (self.room.count.before + self.room.count.made)[0]

    def stepped(self) -> None:
        """Count the token that a compiled step wrote."""
        self._used += 1
        self.seen += 1


def bucket(slots: int) -> int:
    """Return a number of slots that is rounded up, by a quarter at most, or to 32."""
    grain = max(32, 1 << max((slots - 1).bit_length() - 3, 0))
    return -(-slots // grain) * grain


def fixed(tensor: Tensor) -> Tensor:
    """Return the tensor, marked as one that stays where it is: CUDA graphs need not copy it."""
    torch._dynamo.mark_static_address(tensor, guard=False)
    return tensor


def lasting() -> AbstractContextManager[Any]:
    """Return where tensors are made that may be written to outside of inference mode as well."""
    return torch.inference_mode(False) if torch.is_inference_mode_enabled() else nullcontext()


def _widened(part: Float[Tensor, "B H L D"], size: int) -> Float[Tensor, "B H C D"]:
    """Return a buffer that begins with `part`; zeros follow, for hidden slots are still read."""
    B, H, L, D = part.shape
    buffer = part.new_zeros(B, H, size, D)
    buffer[:, :, :L] = part
    return buffer

"""Dense storage whose prefix is held in fewer bits and decoded anew for every pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from foveate.cache.dense import Dense
from foveate.cache.segments import Segments
from foveate.types import Bool, Float, Int, LayerKV

__all__ = ["Codec", "Encoded", "Quantized"]


@runtime_checkable
class Codec(Protocol):
    """A way to hold a tensor in fewer bits; groups of numbers never reach from token to token."""

    @property
    def name(self) -> str:
        """Return what reports call it."""

    def encode(self, tensor: Float[Tensor, "*shape D"]) -> Any:
        """Return what is held in place of the tensor."""

    def decode(self, code: Any) -> Float[Tensor, "*shape D"]:
        """Return the tensor as well as it is known."""

    def nbytes(self, code: Any) -> int:
        """Return the bytes that the code really holds, scales included."""


@dataclass(eq=False)
class Block:
    """Keys and values of neighbouring slots, encoded once; `rows` are those of the batch now."""

    keys: Any
    values: Any
    slots: int
    rows: Int[Tensor, " b"] | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Block:
        return self  # never changed, and not all codes can be copied

    def decoded(self, codec: Codec) -> tuple[Tensor, Tensor]:
        """Return the keys and values."""
        keys, values = codec.decode(self.keys), codec.decode(self.values)
        return (keys, values) if self.rows is None else (keys[self.rows], values[self.rows])

    def taken(self, rows: Int[Tensor, " b"]) -> Block:
        """Return the named rows of the batch; what is encoded stays as it is."""
        rows = rows if self.rows is None else self.rows[rows]
        return Block(self.keys, self.values, self.slots, rows)


class Quantized(Dense):
    """Dense storage that `freeze` encodes the prefix of; tokens behind it stay as they came.

    `keys` and `values` are decoded whenever they are read. A prefix is encoded once: later turns
    add blocks, beams choose rows of them, which frees none. Only a crop into the prefix encodes it
    anew.
    """

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self.name = f"dense {codec.name}"
        self.blocks: list[Block] = []
        self._keys: Tensor | None = None  # behind the blocks
        self._values: Tensor | None = None
        super().__init__()

    @staticmethod
    def of(store: Dense, codec: Codec) -> Quantized:
        """Return the same storage, ready to be frozen."""
        if isinstance(store, Quantized):
            return store
        made = Quantized(codec)
        made.keys, made.values, made.positions = store.keys, store.values, store.positions
        made.state, made.planned = store.state, store.planned
        made.start, made.seen, made.released = store.start, store.seen, store.released
        return made

    @property  # type: ignore[override]
    def keys(self) -> Tensor | None:
        """Return all keys, those of the prefix decoded."""
        return self._whole(self._keys, 0)

    @keys.setter
    def keys(self, value: Tensor | None) -> None:
        self._keys = value

    @property  # type: ignore[override]
    def values(self) -> Tensor | None:
        """Return all values, those of the prefix decoded."""
        return self._whole(self._values, 1)

    @values.setter
    def values(self, value: Tensor | None) -> None:
        self._values = value

    def _whole(self, plain: Tensor | None, which: int) -> Tensor | None:
        if plain is None or not self.blocks:
            return plain
        decoded = [block.decoded(self.codec)[which] for block in self.blocks]
        return torch.cat([*decoded, plain], -2)

    def freeze(self) -> None:
        """Encode every slot of the prefix that is not encoded yet."""
        if self._keys is None or self._values is None:
            return
        slots = self.prefix - self._encoded
        if slots:
            keys, values = self._keys[:, :, :slots], self._values[:, :, :slots]
            self.blocks.append(Block(self.codec.encode(keys), self.codec.encode(values), slots))
            self._keys = self._keys[:, :, slots:].clone()
            self._values = self._values[:, :, slots:].clone()

    @property
    def _encoded(self) -> int:
        return sum(block.slots for block in self.blocks)

    @property
    def stored(self) -> int:
        """Return the physical length."""
        return 0 if self._keys is None else self._encoded + self._keys.shape[-2]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Return rows, key-value heads, width of keys and width of values: (B, H, D, Dv)."""
        with self._behind():
            return super().shape

    @property
    def dtype(self) -> torch.dtype:
        """Return the type of the keys and values that attention sees."""
        with self._behind():
            return super().dtype

    @property
    def device(self) -> torch.device | None:
        """Return where the keys are, or None while nothing is stored."""
        return None if self._keys is None else self._keys.device

    def append(
        self, keys: Float[Tensor, "B H T D"], values: Float[Tensor, "B H T Dv"]
    ) -> tuple[Tensor, Tensor]:
        """Store new tokens behind the tail and return all keys and values, decoded."""
        with self._behind():
            super().append(keys, values)
        return self.slots()

    def release(self, stop: int) -> None:
        """Let go of the tail up to position `stop`; what is kept of it comes with `pack`."""
        with self._behind():
            super().release(stop)

    def pack(self, kept: LayerKV, stop: int) -> None:
        """Replace the tail up to position `stop` by what was kept of it, and free the rest."""
        with self._thawed():
            super().pack(kept, stop)

    def retain(
        self,
        keep: Bool[Tensor, "B H L"],
        state: Mapping[str, Tensor],
        summary: Sequence[int] | None = None,
    ) -> None:
        """Free every slot that is not kept, and encode what stays anew."""
        with self._thawed(again=False):
            super().retain(keep, state, summary)
        self.freeze()

    def crop(self, length: int) -> None:
        """Forget every token from logical position `length` on; what was evicted stays evicted."""
        behind = length >= self.start
        with self._thawed(again=behind):
            super().crop(length)
        if not behind:
            self.freeze()

    def take(self, rows: Int[Tensor, " b"]) -> None:
        """Keep the named rows of the batch, in that order; a row may be named twice."""
        with self._behind():
            super().take(rows)
        self.blocks = [block.taken(rows) for block in self.blocks]

    def clear(self) -> None:
        """Forget everything."""
        self.blocks = []
        super().clear()

    @property
    def nbytes(self) -> int:
        """Return the bytes that codes, scales and what lies behind them really hold."""
        with self._behind():
            plain = super().nbytes
        codes = [code for block in self.blocks for code in (block.keys, block.values)]
        return plain + sum(self.codec.nbytes(code) for code in codes)

    @contextmanager
    def _behind(self) -> Iterator[None]:
        """Leave what is encoded out of `keys` and `values`."""
        blocks, self.blocks = self.blocks, []
        try:
            yield
        finally:
            self.blocks = blocks

    @contextmanager
    def _thawed(self, again: bool = True) -> Iterator[None]:
        """Hold everything decoded; `again` says that the encoded slots come out as they were."""
        blocks, slots = self.blocks, self._encoded
        self._keys, self._values, self.blocks = self.keys, self.values, []
        yield
        if again and slots and self._keys is not None and self._values is not None:
            self._keys = self._keys[:, :, slots:].clone()
            self._values = self._values[:, :, slots:].clone()
            self.blocks = blocks


@dataclass(frozen=True, eq=False)
class Encoded(Segments):
    """Segments in fewer bits, decoded whenever their contents are asked for.

    `keys` and `values` tell shapes and types alone. Choosing among the entries encodes them anew.
    """

    codec: Codec | None = None
    codes: tuple[Any, Any] = (None, None)

    @staticmethod
    def by(codec: Codec, plain: Segments) -> Segments:
        """Return the same entries in fewer bits."""
        if isinstance(plain, Encoded):
            return plain
        parts = {part.name: getattr(plain, part.name) for part in fields(plain)}
        for name in ("keys", "values"):
            parts[name] = parts[name].new_zeros(1).expand(parts[name].shape)
        codes = codec.encode(plain.keys), codec.encode(plain.values)
        return Encoded(**parts, codec=codec, codes=codes)

    def __deepcopy__(self, memo: dict[int, Any]) -> Encoded:
        return self  # never changed, and not all codes can be copied

    def contents(self) -> tuple[Float[Tensor, "S D"], Float[Tensor, "S Dv"]]:
        """Return the keys and values, decoded."""
        assert self.codec is not None
        return self.codec.decode(self.codes[0]), self.codec.decode(self.codes[1])

    @property
    def nbytes(self) -> int:
        """Return the bytes of the codes, scales included."""
        assert self.codec is not None
        return sum(map(self.codec.nbytes, self.codes))

    def _picked(self, entries: Int[Tensor, " k"], offsets: Int[Tensor, " n"]) -> Segments:
        """Return these entries, in runs of new lengths."""
        assert self.codec is not None
        return Encoded.by(self.codec, super()._picked(entries, offsets))

"""One layer of the compressed cache: logical lengths outside, physical slots inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicLayer

from foveate.cache.dense import Dense, with_tail
from foveate.cache.ragged import Ragged
from foveate.cache.segments import Segments
from foveate.cache.static import Static
from foveate.cache.store import Store
from foveate.errors import CacheError, OutsidePass
from foveate.hf.attention import EAGER, Tag, per_query_head, slot_mask, tag
from foveate.hf.ragged import RaggedView
from foveate.hf.static import Step
from foveate.hf.storage import Form
from foveate.hf.stream import narrowed
from foveate.hf.turn import Turn
from foveate.types import LayerKV

__all__ = ["CompressedLayer", "row_numbers"]

NOT_SET = "keys and values of a compressed layer cannot be set; run tokens through the model"


class View(Tag):
    """The tag on returned keys: who owns them, and where the slots of this pass belong.

    Layers that share the keys may read it after the layer was trimmed, or packed.
    """

    __slots__ = ("gapless", "layer", "positions", "seen_tokens", "start")

    def __init__(self, layer: CompressedLayer, store: Dense) -> None:
        self.layer, self.positions = layer, store.positions
        self.start, self.seen_tokens = store.start, store.seen
        self.gapless = store.is_gapless()

    def mask(self, mask: Tensor | None, query: Tensor, name: str) -> Tensor | None:
        """Return the mask over physical slots, in the form that the named implementation reads."""
        turn = self.layer.turn
        if self.positions is None:
            return mask
        covered = turn.plain_mask and (mask is None or (turn.clean and not turn.open))
        if covered and self.gapless and (query.shape[2] == 1 or (mask is None and "flash" in name)):
            return None
        logical = with_tail(self.positions, self.start, self.seen_tokens)
        if covered and query.shape[2] == 1:
            return per_query_head((logical < 0)[:, :, None], query, name == EAGER)
        start = self.seen_tokens - query.shape[2]
        return slot_mask(mask, logical, query, start=start, eager=name == EAGER)

    def seen(self, module: nn.Module, query: Tensor, scaling: float | None) -> None:
        """Hand the queries to the layer that owns the keys."""
        self.layer.note_queries(module, query, scaling)


class CompressedLayer(DynamicLayer):
    """A full-attention layer that reports its logical length and keeps its slots private."""

    def __init__(self, index: int, turn: Turn, form: Form) -> None:
        self.form = form
        self.store: Store = form.empty()
        self.index = index
        self.turn = turn
        self.attended = False
        self.peak = 0
        self.loose: Segments | None = None  # what a turn may still keep, its tail being released
        super().__init__()

    @property
    def keys(self) -> Tensor | None:
        """Return the stored keys in slots."""
        return None if self.store.device is None else self.store.slots()[0]

    @keys.setter
    def keys(self, value: Tensor | None) -> None:
        if value is None:
            self.store = self.form.empty()
        else:
            raise CacheError(NOT_SET)

    @property
    def values(self) -> Tensor | None:
        """Return the stored values in slots."""
        return None if self.store.device is None else self.store.slots()[1]

    @values.setter
    def values(self, value: Tensor | None) -> None:
        if value is not None:
            raise CacheError(NOT_SET)

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor | None = None) -> None:
        """Note dtype and device; storage begins with the first tokens."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Store new tokens and return all slots, the keys tagged with this layer."""
        if not self.turn.running:
            raise OutsidePass(
                "a compressed cache was updated outside a forward pass of its model; call the "
                "whole model that the cache was made for, while its context is open"
            )
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        if self.turn.stepping:
            assert isinstance(self.store, Static)
            keys, values = self.store.write(key_states, value_states)
            return tag(keys, Step(self.store)), values
        keys, values = self.store.append(key_states, value_states)
        if self.turn.prompt:  # steps only add; the cache has all weighed before any shrinks
            self.weigh()
        return tag(keys, self.view()), values

    def view(self) -> Tag:
        """Return what the attention function is told about the keys of this pass."""
        if isinstance(self.store, Ragged):
            return RaggedView(self, self.store)
        assert isinstance(self.store, Dense)
        return View(self, self.store)

    def note_queries(self, module: nn.Module, query: Tensor, scaling: float | None) -> None:
        """Hand the queries of a pass to the turn, if this module owns the keys."""
        turn, index = self.turn, self.index
        if getattr(module, "layer_idx", index) != index:
            return
        if scaling is None:
            scaling = getattr(module, "scaling", None) or query.shape[-1] ** -0.5
        self.attended = True
        turn.scaling[index] = float(scaling)
        if turn.prompt:
            turn.capture(index, query)
            if turn.stop is not None:
                turn.rank(index, *self.store.tail(turn.stop))
            turn.account.close_layer()
        elif turn.following.active:
            turn.following.capture(index, query)

    @property
    def nbytes(self) -> int:
        """Return the bytes that keys and values of this layer hold, on its device."""
        return self.store.nbytes + (0 if self.loose is None else self.loose.nbytes)

    def weigh(self, beside: int = 0) -> None:
        """Note what is held now, with bytes `beside` it that go again."""
        held = self.nbytes
        self.peak = max(self.peak, held + beside)
        self.turn.account.note(self.index, held, beside)

    def trim(self, keep: Tensor, stop: int) -> None:
        """Hold on to the kept positions [B, H, T] of the turn up to `stop`, and to no others."""
        before = self.nbytes
        if self.loose is None:
            positions = torch.arange(keep.shape[-1], device=keep.device)
            self.loose = Segments.of(*self.store.tail(stop), keep, positions[None, None])
            self.weigh()
            self.store.release(stop)
        else:
            self.loose = narrowed(self.loose, keep)
            self.weigh(before - self.store.nbytes)
        self.weigh()

    def pack(self, kept: LayerKV | Segments, stop: int) -> None:
        """Store what was kept of the tail up to position `stop`, in the form that suits it."""
        before = self.nbytes + (kept.nbytes if isinstance(kept, Segments) else nbytes(kept))
        store = self.store = self.form.packing(self.store, kept)
        if isinstance(store, Ragged):
            store.pack(kept, stop)
        else:
            assert isinstance(kept, LayerKV)
            store.pack(kept, stop)
        self.loose = None
        self.weigh(before)

    def retain(self, keep: Tensor, state: Mapping[str, Tensor], summary: Sequence[int]) -> None:
        """Free every slot that is not kept [B, H, L], and store the rest in the form for that."""
        self.store.retain(keep, state, summary)
        self.store = self.form.retained(self.store)
        self.weigh()

    def settle(self) -> None:
        """Store what all prompts left in the form that decoding uses."""
        before = self.nbytes
        self.store = self.form.settled(self.store)
        self.weigh(before if self.nbytes != before else 0)  # what moved was there twice

    def get_seq_length(self, *args: Any) -> int:
        """Return the logical length."""
        if self.turn.stepping and isinstance(self.store, Static):
            return self.store.position()  # type: ignore[return-value]
        return self.store.seen

    def get_mask_sizes(self, query_length: Any) -> tuple[int, int]:
        """Return the logical length behind the query, offset 0; older releases pass positions."""
        if self.turn.stepping and isinstance(self.store, Static):
            return self.store.size, 0
        tokens = query_length if isinstance(query_length, int) else query_length.shape[0]
        return self.store.seen + tokens, 0

    def crop(self, tokens_to_remove: int) -> None:
        """Remove that many tokens (negative), or cut to that length (positive, older releases)."""
        count = int(tokens_to_remove)  # some releases give a tensor
        length = count if count > 0 else self.store.seen + count
        self.store.crop(max(length, 0))
        if not self.store.seen:
            self.store = self.form.empty()
        self.weigh()

    def reset(self) -> None:
        """Forget everything."""
        self.store, self.loose = self.form.empty(), None
        self.is_initialized = False
        self.peak = 0

    def reorder_cache(self, beam_idx: Tensor) -> None:  # type: ignore[override]
        """Follow the beams."""
        self.store.take(beam_idx)
        self.weigh()

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep the named rows."""
        self.store.take(row_numbers(indices))
        self.weigh()

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every row."""
        if self.store.device is not None:
            self.store.take(torch.arange(self.store.shape[0]).repeat_interleave(repeats))
            self.weigh()


def nbytes(kept: LayerKV) -> int:
    """Return the bytes of packed keys and values."""
    return sum(x.untyped_storage().nbytes() for x in (kept.packed_keys, kept.packed_values))


def row_numbers(rows: Tensor) -> Tensor:
    """Return row numbers, also where a bool mask came."""
    return rows.nonzero().flatten() if rows.dtype == torch.bool else rows

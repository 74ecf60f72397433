"""The compressed cache: our layers behind the Hugging Face cache interface."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache

from foveate.cache.ragged import Ragged
from foveate.cache.report import CacheReport
from foveate.errors import CacheError, InputError, MethodError, UnsupportedModel
from foveate.hf import kinds as token_kinds
from foveate.hf.attach import Attachment, Lease
from foveate.hf.generate import Owner
from foveate.hf.layer import CompressedLayer, row_numbers
from foveate.hf.measure import layer_report
from foveate.hf.packing import finish
from foveate.hf.ragged import check_weights
from foveate.hf.static import can_step
from foveate.hf.storage import Form
from foveate.hf.stream import Stream, holds_on
from foveate.hf.support import (
    check_fitted,
    check_method,
    compressible,
    has_grid_positions,
    native_layers,
)
from foveate.hf.turn import Turn
from foveate.method import Method


class CompressedCache(Cache):
    """A cache that compresses the prompt of every turn, for `model.generate` or `forward`.

    `visual_mask` [B, T] states which prompt positions are visual where ids cannot (padding
    included). `storage` ("dense", "ragged", "auto" or "static") and `quantized` ("fp8", "hqq" or
    "quanto") say in which form the survivors are held. `stream=False` holds a prompt whole until
    its last layer is ranked, with the same result, to compare with. Raises `UnsupportedModel` for
    models without a seam.
    """

    def __init__(
        self,
        model: nn.Module | Lease,
        method: Method,
        *,
        visual_mask: Tensor | None = None,
        storage: str = "dense",
        stream: bool = True,
        quantized: str | None = None,
    ) -> None:
        check_method(method)
        form = Form(storage, quantized)
        form.check(method)
        self.form = form
        self.is_offered = False  # `generate` asks whether to compile
        if visual_mask is not None and visual_mask.ndim != 2:
            raise InputError(
                f"visual_mask has shape {tuple(visual_mask.shape)}; give [B, T], padding included"
            )
        self.lease = model if isinstance(model, Lease) else Lease(model)
        text = self.attachment.text_config
        check_fitted(method, self.attachment.config)
        if method.when.positions == "compacted" and has_grid_positions(text):
            raise MethodError(
                "positions='compacted' came for a model with positions in time, height and width; "
                "use positions='original'"
            )
        self.open: ExitStack | None = None
        self.recorder: Owner | None = None
        self.method = method
        here = self.attachment
        self.turn = Turn(method, rotation=here.rotation, group=here.group)
        self.visual_mask = visual_mask
        self.grids: Mapping[str, Any] = {}  # of images that `generate` encodes ahead
        self.broken = False
        self.seconds = 0.0
        self.explain: dict[int, Mapping[str, Any]] = {}
        self.streams = stream
        self.held_whole: str | None = None  # why the last prompt was, if it was
        self.shift: Tensor | None = None
        self._lengths: list[int] = []
        self.notes: list[str] = []
        chosen = set(compressible(text))
        super().__init__(
            layers=[
                CompressedLayer(i, self.turn, form) if i in chosen else layer
                for i, layer in enumerate(native_layers(text))
            ]
        )
        self.compressed_layers = [x for x in self.layers if isinstance(x, CompressedLayer)]
        self.turn.layers = len(self.layers)

    @property
    def attachment(self) -> Attachment:
        """Return what is known of the model."""
        return self.lease.attachment

    @property
    def seen(self) -> int:
        """Return the logical length."""
        return max(layer.store.seen for layer in self.compressed_layers)

    @property
    def is_compileable(self) -> bool:
        """Return what `generate` is told when it asks whether to compile its steps."""
        return self.is_offered and can_step(self)

    def weigh(self) -> None:
        """Note what every layer holds now, before one lets go of anything."""
        for layer in self.compressed_layers:
            layer.weigh()

    def expect(self, length: int | None, tokens: int | None = None) -> None:
        """State at which length the prompt is complete, and how many tokens may follow."""
        self.turn.expected = length
        self.form.clock.expect(tokens)

    def check_usable(self) -> None:
        """Raise `CacheError` if a pass failed half-way and left the layers different."""
        if self.broken:
            raise CacheError(
                "this cache was in a forward pass that failed and holds part of it; use a new cache"
            )

    def begin(self, kwargs: Mapping[str, Any], tokens: int) -> None:
        """Prepare for a forward pass over `tokens` new tokens; called by the seam."""
        if self.turn.running:  # an interrupt that no hook heard of
            self.fail()
        self.check_usable()
        layers = self.compressed_layers
        if layers[0].form.storage == "ragged" or any(isinstance(x.store, Ragged) for x in layers):
            check_weights(kwargs, self.attachment.text_config)
        turn, seen, config = self.turn, self.seen, self.attachment.config
        features = token_kinds.has_features(kwargs)
        if turn.expected is not None:
            turn.prompt = seen < turn.expected
        else:
            turn.prompt = seen == 0 or tokens > 1 or features
        mask = kwargs.get("attention_mask")
        turn.note_mask(mask)
        self._lengths = self._stored_lengths()
        kinds = None
        if turn.prompt:
            if seen > turn.start and not turn.open:
                self.weigh()
                for layer in layers:
                    layer.store.seal(seen)
                turn.begin(seen)
            stated = token_kinds.stated(self.visual_mask, kwargs, seen, tokens, turn.expected)
            kinds = self.attachment.token_kinds(
                {**kwargs, **self.grids}, stated, trust=features or not turn.number
            )
            turn.add(kinds, seen, mask, lambda x: token_kinds.grids(config, self.grids, x))
            if turn.expected is None:
                turn.scene = turn.scene.note(kwargs, seen, seen + tokens)
            if not turn.following.active:
                turn.account.open_pass()
                self._open_stream()
        if turn.following.active:
            turn.following.open(seen, tokens, kinds)
            turn.prompt = False
        turn.running = True

    def _open_stream(self) -> None:
        """Let layers go from what they hold in this pass, if it completes a prompt."""
        turn = self.turn
        turn.stream = self.held_whole = None
        if turn.stop is None or not self.streams:
            return
        self.held_whole = holds_on(self.method)
        if self.held_whole is None:
            layers = [
                x for x in self.compressed_layers if not turn.scaling or x.index in turn.scaling
            ]
            turn.stream = Stream(self.method, layers, turn.stop)

    def end(self) -> None:
        """Finish a forward pass, and compress if it completed a prompt; called by the seam."""
        self.turn.running = False
        self.broken = True  # should anything raise before all layers agree again
        if self.turn.following.active:
            self._follow()
        if self.turn.prompt and (self.turn.expected is None or self.seen >= self.turn.expected):
            finish(self, self.seen if self.turn.expected is None else self.turn.expected)
        self.broken = False

    def fail(self) -> None:
        """Note that a forward pass raised; unusable if some layers hold its tokens already."""
        self.turn.running, self.turn.stream = False, None
        recurrent = any(not hasattr(layer, "get_seq_length") for layer in self.layers)
        if recurrent or self._stored_lengths() != self._lengths:
            self.broken = True
            self.turn.captured.clear()
            self.turn.rankings.clear()
            for layer in self.compressed_layers:
                layer.loose = None
        else:
            self.turn.crop(self.seen)

    def _stored_lengths(self) -> list[int]:
        """Return the lengths of all layers that have one."""
        layers = [layer for layer in self.layers if hasattr(layer, "get_seq_length")]
        return [layer.get_seq_length() for layer in layers]

    def place(self, kwargs: dict[str, Any], tokens: int) -> None:
        """Set the positions of new tokens where the method counts on from the compressed length."""
        if self.shift is None:
            return
        positions = kwargs.get("position_ids")
        if positions is None:
            positions = torch.arange(self.seen, self.seen + tokens, device=self.shift.device)[None]
        kwargs["position_ids"] = positions - self.shift[:, None].to(positions.device)

    @torch.no_grad()
    def _follow(self) -> None:
        """Evict what decoding has no room for, if it is time for that."""
        turn, began = self.turn, time.perf_counter()
        prompt = turn.open and (turn.expected is None or self.seen >= turn.expected)
        if turn.following.is_due(prompt, self.seen) and (prompt or not turn.open):
            assert turn.kinds is not None
            self.weigh()
            turn.following.look(self.compressed_layers, turn.kinds, turn.scaling)
            turn.open = False
        self.seconds += time.perf_counter() - began

    def crop(self, tokens_to_remove: int) -> None:
        """Remove that many tokens (negative), or cut to that length (positive, older releases)."""
        self.weigh()
        try:
            super().crop(tokens_to_remove)
        except ValueError as error:
            self.broken = True
            raise UnsupportedModel(
                "this release of transformers cannot take tokens back from sliding-window layers, "
                "as assisted decoding must; leave assistance out, or use a newer release"
            ) from error
        except RuntimeError:  # sliding windows that nobody told to remember
            self.broken = True
            raise
        self.turn.crop(self.seen)
        if not self.seen:
            self.turn.reset()
            self.shift = None

    def reset(self) -> None:
        """Forget everything, and be as new."""
        self.close()
        super().reset()
        self.turn.reset()
        self.turn.account.reset()
        self.expect(None)
        self.broken, self.shift, self.seconds, self.explain = False, None, 0.0, {}
        self.held_whole = None

    def reorder_cache(self, beam_idx: Tensor) -> None:  # type: ignore[override]
        """Follow the beams."""
        self.weigh()
        super().reorder_cache(beam_idx)  # type: ignore[arg-type]
        self._take(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep the named rows."""
        self.weigh()
        super().batch_select_indices(indices)
        self._take(row_numbers(indices))

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every row."""
        self.weigh()
        super().batch_repeat_interleave(repeats)
        if self.turn.kinds is not None:
            self._take(torch.arange(len(self.turn.kinds.kind)).repeat_interleave(repeats))

    def _take(self, rows: Tensor) -> None:
        """Follow the rows in what is shared by the layers."""
        self.turn.take(rows)
        if self.shift is not None:
            self.shift = self.shift[rows.to(self.shift.device)]

    def close(self) -> None:
        """Close the seam of a forward pass, if it is open still: no hook hears of an interrupt."""
        if self.open is not None:
            self.open.close()
            self.open = None

    def __del__(self) -> None:
        if hasattr(self, "open"):
            self.close()

    def report(self) -> CacheReport:
        """Return what is stored now, measured, and what was kept of the prompts."""
        return layer_report(self)

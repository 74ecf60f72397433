"""The report of a cache: what is stored now, measured, and what was kept of the prompts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from foveate.cache.report import CacheReport, LayerReport
from foveate.hf.static import static_notes
from foveate.scope import Visual
from foveate.types import TokenKinds

if TYPE_CHECKING:
    from foveate.hf.cache import CompressedCache
    from foveate.hf.layer import CompressedLayer


def layer_report(cache: CompressedCache) -> CacheReport:
    """Return the report of a cache as it stands."""
    cache.weigh()
    kinds = cache.turn.kinds
    kinds = None if kinds is None else kinds.to(torch.device("cpu"))
    layers, kept, indices = [], [], []
    for layer in cache.compressed_layers:
        if layer.store.device is None or kinds is None:
            continue
        positions = _kept_positions(layer, kinds)
        layers.append(_layer(cache, layer, positions, kinds))
        kept.append(positions)
        indices.append(layer.index)
    native = [layer for layer in cache.layers if layer not in cache.compressed_layers]
    bytes_native = sum(native_bytes(layer) for layer in native)
    account, config = cache.turn.account, cache.attachment.config
    return CacheReport(
        method=repr(cache.method),
        layers=tuple(layers),
        total_visual=int(kinds.visual.sum()) if kinds is not None else 0,
        total_text=int(kinds.text.sum()) if kinds is not None else 0,
        seconds=cache.seconds,
        native_layers=len(native),
        bytes_native=bytes_native,
        bytes_peak=account.peak + bytes_native,
        held=tuple(account.held),
        notes=tuple(_notes(cache, kinds)),
        _kept=tuple(kept),
        _layers=tuple(indices),
        _scene=None if kinds is None else cache.turn.scene.at_rest(config, len(kinds.kind)),
    )


def _kept_positions(layer: CompressedLayer, kinds: TokenKinds) -> Tensor:
    """Return the prompt positions [B, h, P] that are stored, -1 for empty slots and padding."""
    logical = layer.store.logical().cpu()
    logical = torch.where(logical < kinds.kind.shape[1], logical, -1)
    valid = kinds.valid[:, None].expand(-1, logical.shape[1], -1)
    stays = valid.gather(-1, logical.clamp(min=0)) & (logical >= 0)
    positions = torch.where(stays, logical, -1)
    used = (positions >= 0).flatten(0, 1).any(0).nonzero().flatten().tolist()
    return positions[..., : max(used, default=-1) + 1].int().clone()


def _layer(
    cache: CompressedCache, layer: CompressedLayer, positions: Tensor, kinds: TokenKinds
) -> LayerReport:
    """Return the record of one layer."""
    B, H, D, Dv = layer.store.shape
    filled = positions >= 0
    visual = kinds.visual[:, None].expand(-1, positions.shape[1], -1)
    seen_visual = visual.gather(-1, positions.clamp(min=0).long()) & filled
    width = (D + Dv) * layer.store.dtype.itemsize
    heads = positions.shape[1]
    return LayerReport(
        layer=layer.index,
        seen=layer.store.seen,
        stored=layer.store.stored,
        storage=layer.store.name,
        kept_visual=int(seen_visual.sum()) / heads,
        kept_text=int((filled & ~seen_visual).sum()) / heads,
        bytes_full=B * H * layer.store.seen * width,
        bytes_stored=layer.store.nbytes,
        bytes_filled=_filled(layer) * width,
        bytes_metadata=layer.store.metadata_nbytes,
        bytes_peak=max(layer.peak, layer.nbytes),
        seconds=cache.turn.seconds.get(layer.index, 0.0),
        explain=_explain(cache, layer.index),
    )


def _filled(layer: CompressedLayer) -> int:
    """Return how many tokens all rows and heads of a layer store."""
    logical = layer.store.logical()
    return int((logical >= 0).sum()) * layer.store.shape[1] // logical.shape[1]


def _explain(cache: CompressedCache, index: int) -> Mapping[str, Any]:
    """Return the numbers behind the last plan of one layer, on the processor."""
    if not cache.explain:
        return {}
    values = cache.explain.get(index, {})
    return {k: v.cpu() if isinstance(v, Tensor) else v for k, v in values.items()}


def native_bytes(layer: Any) -> int:
    """Return the bytes of a layer that is left as the model has it, states and windows alike."""
    found: list[Any] = []
    for value in vars(layer).values():
        held = list(value.values()) if isinstance(value, dict) else value
        found += held if isinstance(held, (list, tuple)) else [held]
    storages = (x.untyped_storage() for x in found if isinstance(x, Tensor))
    return sum({s.data_ptr(): s.nbytes() for s in storages}.values())


def _notes(cache: CompressedCache, kinds: TokenKinds | None) -> list[str]:
    """Return what a reader of the report should know."""
    notes, explained = [*cache.notes, *static_notes(cache)], list(cache.explain.values())
    if cache.held_whole is not None:
        notes.append(
            f"every layer was held whole until the last one was ranked: {cache.held_whole}"
        )
    if kinds is None:
        notes.append("nothing has passed through this cache yet")
    elif not bool(kinds.visual.any()) and isinstance(cache.method.scope, Visual):
        notes.append("the prompt has no visual tokens: every token was kept")
    if any(bool(values["fallback"].any()) for values in explained if "fallback" in values):
        notes.append("no text follows the last image: its last visual tokens served as the window")
    if any(is_short(values) for values in explained):
        notes.append(
            "in some layers the budget holds no more than what is protected (window, sinks, recent "
            "tokens): keep more, or protect fewer"
        )
    return notes


def is_short(values: Mapping[str, Any]) -> bool:
    """Return whether some head of a layer has room for protected tokens alone."""
    pinned = values["pinned"][:, None].to(values["budget"].device)
    return bool(((pinned > 0) & (values["budget"] <= pinned)).any())

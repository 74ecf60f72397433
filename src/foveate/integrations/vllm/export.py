"""Writing a compressed cache for vLLM, its keys moved to where vLLM is going to place them."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from foveate.errors import CacheError, InputError, UnsupportedModel
from foveate.hf import CompressedCache
from foveate.integrations.vllm.families import check_rotation, known_family
from foveate.integrations.vllm.handoff import Handoff
from foveate.integrations.vllm.prefill import Prefilled
from foveate.score.expected import angles, exact, turned
from foveate.types import Bool, Float

__all__ = ["check_fits", "export", "moved"]


@torch.no_grad()
def export(prefilled: Prefilled, folder: str | Path, name: str | None = None) -> list[Handoff]:
    """Write one file per row of the batch into `folder`, and return what they are.

    They are called `name` (if not given, something random) and the row's number. Keys that the
    model rotated to what it calls position p are turned on to where vLLM counts them. Raises
    `UnsupportedModel`, `MethodError` or `InputError` with what does not fit.
    """
    cache = prefilled.cache
    check_fits(cache)
    B = cache.compressed_layers[0].store.shape[0]
    for what, given in (("first tokens", prefilled.first), ("positions", prefilled.positions)):
        if given.shape != (B,):
            raise InputError(
                f"{what} of the shape {tuple(given.shape)} came for a cache of {B} rows; give [B]"
            )
    folder, name = Path(folder), name or uuid.uuid4().hex
    if Path(name).name != name:
        raise InputError(
            f"the name {name!r} is a path; give a file's name, and its folder beside it"
        )
    folder.mkdir(parents=True, exist_ok=True)
    rows = [_row(cache, row, int(prefilled.positions[row])) for row in range(B)]
    return [
        _write(prefilled, row, tensors, folder / f"{name}-{row}.safetensors")
        for row, tensors in enumerate(rows)
    ]


def check_fits(cache: CompressedCache) -> None:
    """Raise `UnsupportedModel` or `InputError` for a cache that vLLM cannot go on from."""
    cache.check_usable()
    text, method = cache.attachment.text_config, cache.method
    known_family(text)
    check_rotation(text)
    rotation = cache.attachment.rotation
    if rotation.frequencies is None:
        raise UnsupportedModel(f"how {cache.attachment.model_name} rotates its keys is not known")
    if len(cache.compressed_layers) < len(cache.layers):
        others = [i for i, x in enumerate(cache.layers) if x not in cache.compressed_layers]
        raise UnsupportedModel(
            f"layers {others} are no full attention (sliding windows, say); vLLM takes models "
            "whose layers all are"
        )
    if cache.attachment.group is not None:
        raise UnsupportedModel(
            "the heads of this model are in several processes; read the prompt in a single one"
        )
    if method.when.follow is not None:
        raise InputError(
            "this method evicts while decoding, which vLLM does not; make it with every=0, or "
            "take a method that compresses prompts alone"
        )
    if cache.form.quantized is not None:
        raise InputError(
            f"this cache is quantized to {cache.form.quantized!r}; vLLM takes keys as they are: "
            "leave quantized out"
        )
    for layer in cache.compressed_layers:
        if layer.store.device is None:
            raise CacheError(
                f"layer {layer.index} holds nothing; read the prompt first, as prefill does"
            )


def _row(cache: CompressedCache, row: int, position: int) -> dict[str, Tensor]:
    """Return keys and values of one row of the batch, each [n, H, D], keys moved."""
    frequencies = cache.attachment.rotation.frequencies
    assert frequencies is not None
    filled = {layer.index: _filled(cache, layer, row) for layer in cache.compressed_layers}
    counts = {index: mask.sum(-1) for index, mask in filled.items()}
    least = min(int(count.min()) for count in counts.values())
    most = max(int(count.max()) for count in counts.values())
    if least < most:
        raise InputError(
            f"layers and heads of row {row} keep {least} to {most} tokens, and vLLM has one length "
            "for all; read the prompt with prefill(..., pad='next-best'), or take a method that "
            "keeps the same everywhere and a whole number for keep (a share is rounded by layer)"
        )
    if not most:
        raise InputError(f"nothing is stored for row {row}; there is nothing to hand over")
    tensors = {}
    for layer in cache.compressed_layers:
        mask = filled[layer.index]
        keys, values = (x[row][mask].view(len(mask), most, -1) for x in layer.store.slots())
        keys = moved(keys, most - position, frequencies)
        tensors[f"keys.{layer.index}"] = keys.transpose(0, 1).contiguous()
        tensors[f"values.{layer.index}"] = values.transpose(0, 1).contiguous()
    return tensors


def _filled(cache: CompressedCache, layer: Any, row: int) -> Bool[Tensor, "H L"]:
    """Return which slots hold a token, and no padding of the prompt."""
    logical = layer.store.logical()[row]
    filled = logical >= 0
    if cache.turn.kinds is not None:
        valid = cache.turn.kinds.valid[row].to(logical.device)
        inside = logical.clamp(min=0, max=len(valid) - 1)
        filled = filled & (valid[inside] | (logical >= len(valid)))
    return filled.expand(layer.store.shape[1], -1)


def moved(
    keys: Float[Tensor, "H n D"], by: int, frequencies: Float[Tensor, " d"]
) -> Float[Tensor, "H n D"]:
    """Return rotated keys as they would be `by` positions further on."""
    turn = angles(
        torch.tensor(by, device=keys.device), frequencies.to(keys.device, exact(keys.device))
    )
    return turned(keys.float(), turn.cos().float(), turn.sin().float()).to(keys.dtype)


def _write(prefilled: Prefilled, row: int, tensors: dict[str, Tensor], path: Path) -> Handoff:
    """Write the file of one row in one go: under its name it is whole, or not there."""
    keys = next(iter(tensors.values()))
    cache = prefilled.cache
    handoff = Handoff(
        path=path,
        length=keys.shape[0],
        first=int(prefilled.first[row]),
        position=int(prefilled.positions[row]),
        layers=len(cache.compressed_layers),
        heads=keys.shape[1],
        width=keys.shape[2],
        dtype=str(keys.dtype).removeprefix("torch."),
        method=repr(cache.method),
        model=cache.attachment.model_name,
    )
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        save_file({k: v.cpu() for k, v in tensors.items()}, partial, handoff.to_metadata())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return handoff

"""Fewer bits per number, by the quantised cache layers of transformers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from transformers import cache_utils

from foveate.errors import InputError, UnsupportedModel
from foveate.types import Float

__all__ = ["QUANTIZED", "check_quantized", "codec"]

QUANTIZED = {  # name: layer of transformers, package it needs, bits
    "fp8": ("Fp8QuantizedLayer", None, 8),
    "hqq": ("HQQQuantizedLayer", "hqq", 4),
    "quanto": ("QuantoQuantizedLayer", "optimum-quanto", 4),
}
GROUP = 64  # numbers that share a scale, as in transformers


def check_quantized(name: str | None) -> None:
    """Raise for a name that is not known, or whose layer or package is not there."""
    if name is None:
        return
    if name not in QUANTIZED:
        allowed = ", ".join(map(repr, QUANTIZED))
        raise InputError(f"quantized={name!r} is not known; allowed: {allowed}, None")
    layer, package, _ = QUANTIZED[name]
    if not hasattr(cache_utils, layer):
        raise UnsupportedModel(
            f"this release of transformers has no {layer}, which quantized={name!r} stores with; "
            "use a newer release, or quantized='hqq' or 'quanto'"
        )
    if package is not None and find_spec(package.replace("-", ".").partition(".")[0]) is None:
        raise InputError(
            f"quantized={name!r} needs the package {package}; `pip install {package}`, or use 'fp8'"
        )


def codec(name: str, keys: Tensor, values: Tensor) -> LayerCodec:
    """Return how tensors like these keys and values are held in fewer bits."""
    layer, _, bits = QUANTIZED[name]
    kind: Any = getattr(cache_utils, layer)
    if name == "fp8":
        return Fp8Codec(name, kind(), keys.dtype)
    width = math.gcd(keys.shape[-1], values.shape[-1])
    group = max(size for size in range(1, GROUP + 1) if width % size == 0)
    axis = 1 if name == "hqq" else 0  # one scale per row of a table [numbers / group, group]
    made = kind(nbits=bits, axis_key=axis, axis_value=axis, q_group_size=group)
    made.keys = keys.new_empty(0)  # whose type and device the layer reads
    return LayerCodec(name, made, keys.dtype)


@dataclass(frozen=True, eq=False)
class LayerCodec:
    """Groups of up to 64 numbers of one token, with a scale and a zero each."""

    name: str
    layer: Any
    dtype: torch.dtype

    def encode(self, tensor: Float[Tensor, "*shape D"]) -> Any:
        """Return what is held in place of the tensor."""
        if not tensor.numel():
            return None, tensor.shape
        table = tensor.reshape(-1, self.layer.q_group_size)
        table = torch.nn.functional.pad(table, (0, 0, 0, len(table) % 2))  # packed in pairs of rows
        return self.layer._quantize(table, axis=self.layer.axis_key), tensor.shape

    def decode(self, code: Any) -> Float[Tensor, "*shape D"]:
        """Return the tensor as well as it is known."""
        held, shape = code
        if held is None:
            return self.layer.keys.new_empty(shape)
        numbers = self.layer._dequantize(held).to(self.dtype).flatten()
        return numbers[: math.prod(shape)].view(shape)

    def nbytes(self, code: Any) -> int:
        """Return the bytes that the code really holds, scales included."""
        storages = [part.untyped_storage() for part in tensors(code[0])]
        return sum({s.data_ptr(): s.nbytes() for s in storages}.values())


class Fp8Codec(LayerCodec):
    """Eight bits per number, with a scale per token."""

    def encode(self, tensor: Float[Tensor, "*shape D"]) -> Any:
        """Return what is held in place of the tensor."""
        tiny = torch.finfo(torch.float32).tiny
        largest = tensor.float().abs().amax(-1, keepdim=True) / self.layer.fp8_max
        return self.layer._quantize(tensor, scale=largest.clamp(min=tiny)), tensor.shape

    def decode(self, code: Any) -> Float[Tensor, "*shape D"]:
        """Return the tensor as well as it is known."""
        numbers, scale = code[0]
        return (numbers.float() * scale).to(self.dtype)


def tensors(held: Any) -> list[Tensor]:
    """Return every plain tensor in what a quantised layer of transformers made."""
    if isinstance(held, Tensor) and hasattr(held, "__tensor_flatten__"):
        return [
            part for name in held.__tensor_flatten__()[0] for part in tensors(getattr(held, name))
        ]
    if isinstance(held, Tensor):
        return [held]
    if isinstance(held, dict):
        return [part for value in held.values() for part in tensors(value)]
    if isinstance(held, (tuple, list)):
        return [part for value in held for part in tensors(value)]
    return []

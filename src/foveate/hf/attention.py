"""The attention seam: registered functions, wrapped while a forward pass with our cache runs.

A cache layer tags the keys it returns (`tag`); the wrapped functions look for that tag and nothing
else, so vision towers, other caches and other models pass straight through.
"""

from __future__ import annotations

import inspect
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from foveate.errors import UnsupportedModel

EAGER = "foveate_eager"
# what attention functions of transformers are given besides, and what changes their output
STRANGE = (
    "position_bias", "indices", "block_indices", "sinks", "cache", "head_mask", "alibi",
    "cu_seq_lens_q", "cu_seqlens",
)  # fmt: skip
_TAG = "_foveate"
_lock = threading.RLock()
_renamed: dict[int, int] = {}  # text configs that name our eager variant now: passes that run
_wrapped: dict[str, tuple[int, Any, Callable[..., Any]]] = {}  # name: uses, mapping, original


class Call(NamedTuple):
    """What a model gives to the attention function that is registered under a name."""

    name: str
    module: nn.Module
    query: Tensor  # [B, Hq, q, D]
    value: Tensor
    mask: Tensor | None
    scaling: float | None
    options: Mapping[str, Any]


class Tag(Protocol):
    """What a tag says about the keys it sits on."""

    def attend(self, call: Call) -> Tensor | None:
        """Return the output [B, q, Hq, Dv], or None where the registered function gives it."""
        return None

    def mask(self, mask: Tensor | None, query: Tensor, name: str) -> Tensor | None:
        """Return the mask over physical slots, in the form that the named implementation reads."""

    def seen(self, module: nn.Module, query: Tensor, scaling: float | None) -> None:
        """Hand the queries to the layer that owns the keys."""


def tag(keys: Tensor, view: Tag) -> Tensor:
    """Return a fresh view of the keys that carries `view`; the stored tensor itself stays plain."""
    tagged = keys.view_as(keys)
    setattr(tagged, _TAG, view)
    return tagged


def _through(inner: Callable[..., Any], name: str) -> Callable[..., Any]:
    """Return `inner` for tagged keys: physical mask, attention, then the queries to the cache."""

    def attention(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any
    ) -> Any:
        view: Tag | None = getattr(key, _TAG, None)
        if view is None:
            return inner(module, query, key, value, *args, **kwargs)
        mask, rest = (args[0], args[1:]) if args else (kwargs.pop("attention_mask", None), ())
        scaling = rest[0] if rest and name == EAGER else kwargs.get("scaling")
        attended = view.attend(Call(name, module, query, value, mask, scaling, kwargs))
        if attended is not None:
            view.seen(module, query, scaling)
            return attended, None
        adapted = view.mask(mask, query, name)
        function = inner
        if "flash" in name and adapted is not None and adapted.ndim == 4:
            # flash kernels know no mask per slot, and sdpa knows neither caps nor sinks
            if kwargs.get("softcap") is not None or kwargs.get("s_aux") is not None:
                raise UnsupportedModel(
                    "heads or rows keep different tokens, and this model caps its logits or has "
                    f"attention sinks, which {name} cannot mask; use attn_implementation='eager'"
                )
            function = _original("sdpa")
        out = function(module, query, key, value, adapted, *rest, **kwargs)
        view.seen(module, query, scaling)
        return out

    return attention


def _eager(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Call the eager attention of the file that defines the module's class."""
    forward = inspect.unwrap(type(module).forward)
    function = forward.__globals__.get("eager_attention_forward")
    function = function or getattr(
        sys.modules[type(module).__module__], "eager_attention_forward", None
    )
    if function is None:
        raise UnsupportedModel(
            f"{type(module).__name__} has no eager attention function to call; load the model with "
            "attn_implementation='sdpa'"
        )
    return function(module, *args, **kwargs)


def _original(name: str) -> Callable[..., Any]:
    """Return the registered function behind `name`, unwrapped."""
    if name in _wrapped:
        return _wrapped[name][2]
    return ALL_ATTENTION_FUNCTIONS[name]


def _attach(name: str) -> None:
    """Wrap the function registered under `name`, or count one more use."""
    if name in _wrapped:
        uses, mapping, original = _wrapped[name]
        _wrapped[name] = (uses + 1, mapping, original)
        return
    if name == EAGER:
        ALL_ATTENTION_FUNCTIONS.register(EAGER, _through(_eager, EAGER))
        ALL_MASK_ATTENTION_FUNCTIONS.register(EAGER, ALL_MASK_ATTENTION_FUNCTIONS["eager"])
        _wrapped[name] = (1, type(ALL_ATTENTION_FUNCTIONS)._global_mapping, _eager)
        return
    local = ALL_ATTENTION_FUNCTIONS._local_mapping
    mapping = local if name in local else type(ALL_ATTENTION_FUNCTIONS)._global_mapping
    original = mapping[name]
    mapping[name] = _through(original, name)
    _wrapped[name] = (1, mapping, original)


def _detach(name: str) -> None:
    """Count one use less, and put the original back at zero."""
    uses, mapping, original = _wrapped[name]
    if uses > 1:
        _wrapped[name] = (uses - 1, mapping, original)
        return
    del _wrapped[name]
    if name == EAGER:
        mapping.pop(EAGER, None)
        type(ALL_MASK_ATTENTION_FUNCTIONS)._global_mapping.pop(EAGER, None)
    else:
        mapping[name] = original


@contextmanager
def attention_seam(config: Any) -> Iterator[None]:
    """Let tagged keys through the attention of the model with this text config, then restore."""
    with _lock:
        name = config._attn_implementation
        if name in ("eager", EAGER):
            name = config._attn_implementation = EAGER
            _renamed[id(config)] = _renamed.get(id(config), 0) + 1
        _attach(name)
    try:
        yield
    finally:
        with _lock:
            if name == EAGER:
                _renamed[id(config)] -= 1
                if not _renamed[id(config)]:
                    del _renamed[id(config)]
                    config._attn_implementation = "eager"
            _detach(name)


def check_attention(name: str | None) -> None:
    """Raise `UnsupportedModel` for attention implementations without a seam."""
    if name == "eager" or (name in ALL_ATTENTION_FUNCTIONS and "flex" not in str(name)):
        return
    raise UnsupportedModel(
        f"attention implementation {name!r} has no seam for compressed caches; load the model with "
        "attn_implementation='sdpa', 'eager' or a flash attention"
    )


def slot_mask(
    mask: Tensor | None, logical: Tensor, query: Tensor, *, start: int, eager: bool
) -> Tensor | None:
    """Return `mask` over logical positions [B|1, 1, q, T] as a mask over slots [B, 1|Hq, q, L].

    `logical` [B, h, L] is the position of every slot, -1 where it is empty, `start` the position of
    the first query. A mask [B, T] of padding, or none, is completed by causality.
    """
    if mask is not None and mask.ndim == 4 and 1 < logical.shape[1] < mask.shape[1]:
        logical = logical.repeat_interleave(mask.shape[1] // logical.shape[1], dim=1)
    B, heads, _ = logical.shape
    hidden = (logical < 0)[:, :, None]  # [B, h, 1, L]
    if mask is None or mask.ndim == 2:
        rows = torch.arange(start, start + query.shape[2], device=logical.device)
        hidden = hidden | (logical[:, :, None] > rows[:, None])
        if mask is not None:
            padded = mask[:, None].expand(-1, heads, -1).gather(-1, logical.clamp(min=0)) == 0
            hidden = hidden | padded[:, :, None]
        return per_query_head(hidden, query, eager)
    wide = mask.expand(B, -1, -1, -1).expand(-1, max(heads, mask.shape[1]), -1, -1)
    index = logical.clamp(min=0)[:, :, None].expand(B, wide.shape[1], query.shape[2], -1)
    picked = wide.gather(-1, index)
    if picked.is_floating_point():
        picked = picked.masked_fill(hidden, torch.finfo(picked.dtype).min)
        return _repeated(picked, query)
    return per_query_head(hidden | ~picked, query, eager)


def per_query_head(hidden: Tensor, query: Tensor, eager: bool) -> Tensor:
    """Return where not to look [B, 1|H, q, L] as the mask that the implementation reads."""
    hidden = _repeated(hidden, query)
    if not eager:
        return ~hidden
    low = torch.finfo(query.dtype).min
    return torch.zeros_like(hidden, dtype=query.dtype).masked_fill(hidden, low)


def _repeated(mask: Tensor, query: Tensor) -> Tensor:
    """Return a mask per key-value head as one per query head; a shared one stays shared."""
    heads = mask.shape[1]
    if heads in (1, query.shape[1]):
        return mask
    return mask.repeat_interleave(query.shape[1] // heads, dim=1)

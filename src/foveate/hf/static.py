"""Compiled decoding: `generate` of transformers compiles a step, and we prepare and count it.

A step asks nothing of the host: positions, padding and the number of tokens come in tensors that
`Static` keeps. So the next prompt runs the same compiled code if its buffers have the same sizes.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from foveate.cache.static import Static
from foveate.hf.attention import EAGER, STRANGE, Call, Tag, attention_seam, per_query_head
from foveate.hf.kinds import has_features

if TYPE_CHECKING:
    from foveate.hf.cache import CompressedCache

__all__ = ["Step", "Steps", "can_step", "static_notes", "static_of"]

ASKED = ("_valid_auto_compile_criteria", "get_compiled_call")
KEPT = ("_compiled_call", "_last_compile_config")  # where transformers keeps what it compiled
_lock = threading.RLock()


class Step(Tag):
    """The tag on the buffers that a compiled step reads."""

    __slots__ = ("store",)

    def __init__(self, store: Static) -> None:
        self.store = store

    def attend(self, call: Call) -> Tensor | None:
        """Return the output of the query heads of every key head at once: no key is repeated."""
        room, (B, heads), shared = self.store.room, call.query.shape[:2], call.value.shape[1]
        strange = any(call.options.get(name) is not None for name in STRANGE)
        if room is None or call.name != "sdpa" or heads == shared or strange:
            return None
        query = call.query.reshape(B, shared, heads // shared, -1)
        seen = ~self.store.hidden()[:, :, None]
        output = scaled_dot_product_attention(
            query, room.keys, call.value, attn_mask=seen, scale=call.scaling
        )
        return output.reshape(B, 1, heads, -1)

    def mask(self, mask: Tensor | None, query: Tensor, name: str) -> Tensor | None:
        """Return the mask over all slots of the buffer, whatever the model made for itself."""
        return per_query_head(self.store.hidden()[:, :, None], query, name == EAGER)

    def seen(self, module: nn.Module, query: Tensor, scaling: float | None) -> None:
        """Let the queries go: nothing is scored while decoding."""


def can_step(cache: CompressedCache) -> bool:
    """Return whether a step with this cache can be compiled: every layer must be ours."""
    return cache.form.storage == "static" and not _native(cache)


def static_notes(cache: CompressedCache) -> list[str]:
    """Return what a report says of compiled steps."""
    if cache.form.storage != "static" or not _native(cache):
        return []
    return [
        f"{_native(cache)} of {len(cache.layers)} layers are stored as the model has them, so "
        "generate does not compile its steps"
    ]


def _native(cache: CompressedCache) -> int:
    return len(cache.layers) - len(cache.compressed_layers)


def static_of(inputs: Mapping[str, Any]) -> CompressedCache | None:
    """Return the cache among the arguments of a call if its steps can be compiled."""
    cache: Any = inputs.get("past_key_values")
    return cache if hasattr(cache, "lease") and can_step(cache) else None


class Steps:
    """What a model answers while it generates, when its `generate` asks for compiled code.

    Dynamo itself remembers what it compiled for a model, so nothing is left on the model after.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = weakref.ref(model)
        self._uses = 0
        self._before: dict[str, Any] = {}

    @contextmanager
    def open(self) -> Iterator[None]:
        """Answer for the model, and put back afterwards what transformers keeps on it."""
        model = self._model()
        if not hasattr(model, ASKED[0]):  # a release that does not compile
            yield
            return
        with _lock:
            self._uses += 1
            if self._uses == 1:
                self._install(vars(model))
        try:
            yield
        finally:
            with _lock:
                self._uses -= 1
                if not self._uses:
                    self._remove(vars(model))

    def _install(self, held: dict[str, Any]) -> None:
        self._before = {name: held.pop(name) for name in (*ASKED, *KEPT) if name in held}
        held.update(zip(ASKED, (self.criteria, self.compiled), strict=True))

    def _remove(self, held: dict[str, Any]) -> None:
        for name in (*ASKED, *KEPT):
            held.pop(name, None)
        held.update(self._before)

    def _original(self, name: str) -> Any:
        model = self._model()
        return self._before.get(name) or getattr(type(model), name).__get__(model)

    def criteria(self, inputs: dict[str, Any], config: Any) -> bool:
        """Return whether `generate` is going to compile its steps."""
        cache = static_of(inputs)
        if cache is None:
            return self._original(ASKED[0])(inputs, config)
        cache.is_offered = True
        try:
            return self._original(ASKED[0])(inputs, config)
        finally:
            cache.is_offered = False

    def compiled(self, config: Any) -> Callable[..., Any]:
        """Return what `generate` calls for every pass that it wants compiled."""
        model: Any = self._model()
        call = self._original(ASKED[1])(config or _default(model))

        def step(**inputs: Any) -> Any:
            cache = static_of(inputs)
            if cache is None:
                return call(**inputs)
            if not _is_step(cache, inputs):
                return model(**inputs)
            return _step(cache, call, inputs)

        return step


def _default(model: Any) -> Any:
    """Return how to compile where the caller does not say: one graph, or an error."""
    config = model._default_compile_config() if hasattr(model, "_default_compile_config") else None
    if config is not None and model._can_compile_fullgraph:
        config.fullgraph = True
    return config


def _is_step(cache: CompressedCache, inputs: Mapping[str, Any]) -> bool:
    """Return whether a pass is a step behind a complete prompt, with a mask of padding or none."""
    ids, mask, turn = inputs.get("input_ids"), inputs.get("attention_mask"), cache.turn
    return (
        ids is not None
        and ids.shape[1] == 1
        and (mask is None or mask.ndim == 2)
        and turn.number > 0
        and turn.plain_mask
        and (turn.expected is None or cache.seen >= turn.expected)
        and not has_features(inputs)
        and not inputs.get("output_attentions")
    )


def _step(cache: CompressedCache, call: Callable[..., Any], inputs: dict[str, Any]) -> Any:
    """Make one compiled step: prepare it, run it, count it."""
    try:
        cache.begin(inputs, 1)
        cache.place(inputs, 1)
        stores = _prepared(cache, inputs.get("attention_mask"))
        cache.turn.stepping = True
        with attention_seam(cache.attachment.text_config):
            output = call(**{**inputs, "attention_mask": None})
    except BaseException:
        cache.turn.stepping = False
        cache.fail()
        raise
    cache.turn.stepping = False
    cache.form.clock.tick()
    for store in stores:
        store.stepped()
    cache.end()
    return output


def _prepared(cache: CompressedCache, mask: Tensor | None) -> list[Static]:
    """Return what layers store, brought into tensors: once per prompt, and whenever it moves."""
    found = [layer.store for layer in cache.compressed_layers]
    stores = [store for store in found if isinstance(store, Static) and store.device is not None]
    if not all(store.is_ready for store in stores):
        for store in stores:
            store.reserve(1)
            store.prepare(mask)
        cache.form.clock.restart(cache.seen)
    return stores

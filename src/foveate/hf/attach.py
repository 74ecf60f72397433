"""How a model meets our cache: two hooks around its forward pass, for as long as a lease runs."""

from __future__ import annotations

import inspect
import threading
import weakref
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from foveate.errors import CacheError, InputError
from foveate.hf import kinds
from foveate.hf.attention import attention_seam
from foveate.hf.generate import Owner, SeamCache, cache_of, replace_generate
from foveate.hf.parallel import head_group
from foveate.hf.rotation import rotation
from foveate.hf.static import Steps
from foveate.hf.support import check_model, unwrap
from foveate.types import TokenKinds

_lock = threading.RLock()  # a lease may end while another one of the same thread begins
_attachments: weakref.WeakKeyDictionary[nn.Module, Attachment] = weakref.WeakKeyDictionary()


class Attachment:
    """What is known of one model, and what was put on it; shared by every cache made for it."""

    def __init__(self, model: nn.Module) -> None:
        check_model(model)
        self._model = weakref.ref(model)
        config: Any = model.config
        self.config = config
        self.text_config: Any = config.get_text_config(decoder=True)
        self.special = kinds.special_ids(self.config, getattr(model, "generation_config", None))
        self.model_name = type(model).__name__
        self.rotation = rotation(model, self.text_config)
        self.group = head_group(model)
        forward: Any = model.forward
        self.takes_grids = not {*kinds.GRIDS}.isdisjoint(inspect.signature(forward).parameters)
        self.steps = Steps(model)
        self.session: Owner | None = None
        self._uses = 0
        self._take_off: list[Callable[[], None]] = []

    def __deepcopy__(self, memo: dict[int, Any]) -> Attachment:
        return self

    def acquire(self) -> None:
        """Put the hooks on at the first use."""
        self._uses += 1
        model = self._model()
        if self._uses > 1 or model is None:
            return
        _forget_copied_hooks(model)
        before = model.register_forward_pre_hook(_before, with_kwargs=True)
        after = model.register_forward_hook(_after, with_kwargs=True, always_call=True)
        self._take_off = [before.remove, after.remove, replace_generate(model, self)]

    def release(self) -> None:
        """Take the hooks off after the last use."""
        with _lock:
            self._uses -= 1
            while self._uses == 0 and self._take_off:
                self._take_off.pop()()

    def token_kinds(
        self, kwargs: Mapping[str, Any], visual_mask: Tensor | None, *, trust: bool
    ) -> TokenKinds:
        """Return the kinds of a pass's tokens; their ids are believed on `trust`."""
        return kinds.forward_kinds(
            self.config,
            kwargs,
            trust_ids=trust,
            special=self.special,
            placeholder=self.placeholder(kwargs),
            visual_mask=visual_mask,
        )

    def check_told(self, cache: SeamCache, kwargs: Mapping[str, Any]) -> None:
        """Raise `CacheError` for pictures that an untold `generate` encoded without their grids.

        Python looks `model.generate` up before it makes a cache that stands among its arguments.
        """
        encoded = kwargs.get("mm_encoder_outputs") and self.takes_grids
        known = cache.grids or any(kwargs.get(name) is not None for name in kinds.GRIDS)
        if encoded and not known and cache.turn.expected is None:
            raise CacheError(
                "generate was looked up before this cache was made, and so nobody told the cache "
                "of the prompt; make the cache on a line of its own, cache = "
                "CompressedCache(model, method), and then model.generate(..., "
                "past_key_values=cache)"
            )

    def placeholder(self, kwargs: Any) -> Tensor | None:
        """Return the placeholders' embeddings [n, C], for calls with embeddings and features."""
        model, ids = self._model(), list(kinds.visual_ids(self.config))
        if (
            model is None
            or not ids
            or kwargs.get("input_ids") is not None
            or not kinds.has_features(kwargs)
        ):
            return None
        table: Any = model.get_input_embeddings()  # type: ignore[operator]
        return table(torch.tensor(ids, device=kwargs["inputs_embeds"].device))


class Lease:
    """One use of an attachment; it ends when released, or when nothing refers to it any more."""

    def __init__(self, model: Any) -> None:
        model = unwrap(model)
        with _lock:
            attachment = _attachments.get(model)
            if attachment is None:
                attachment = _attachments[model] = Attachment(model)
            attachment.acquire()
        self.attachment = attachment
        self.release = weakref.finalize(self, attachment.release)

    def __deepcopy__(self, memo: dict[int, Any]) -> Lease:
        return self

    def __reduce__(self) -> Any:
        raise CacheError(
            "a compressed cache belongs to a model of this process and cannot be pickled; save its "
            "report, or copy it with copy.deepcopy"
        )


def _new_tokens(kwargs: dict[str, Any]) -> int:
    """Return how many tokens a forward pass brings."""
    for name in ("input_ids", "inputs_embeds"):
        if kwargs.get(name) is not None:
            return int(kwargs[name].shape[1])
    raise InputError("neither input_ids nor inputs_embeds came; a forward pass needs one of them")


def _before(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Prepare the cache and open the attention seam, for this forward pass only."""
    if args:
        forward: Any = model.forward
        bound = inspect.signature(forward).bind_partial(*args, **kwargs).arguments
        rest = bound.pop("kwargs", {})
        kwargs = {**bound, **rest}
        args = ()
    cache = cache_of(kwargs)
    if cache is not None and cache.turn.stepping:  # whoever makes compiled steps prepares them
        return None
    attachment = _attachments.get(model)
    if attachment is None:
        return None
    fresh = "past_key_values" not in kwargs or kwargs["past_key_values"] is None
    if fresh and attachment.session is not None and _caches(model, attachment.text_config, kwargs):
        cache = kwargs["past_key_values"] = attachment.session.new_cache()
        cache.recorder = attachment.session
    if cache is None:
        return (args, kwargs)
    if cache.lease.attachment is not attachment:
        raise CacheError(
            f"this cache was made for another {cache.lease.attachment.model_name}; make one with "
            "CompressedCache(model, method) for the model that runs"
        )
    attachment.check_told(cache, kwargs)
    tokens = _new_tokens(kwargs)
    cache.close()  # left open by an interrupt
    try:
        cache.begin(kwargs, tokens)
        cache.place(kwargs, tokens)
    except BaseException:
        cache.fail()
        raise
    cache.open = ExitStack()
    cache.open.enter_context(attention_seam(attachment.text_config))
    return (args, kwargs)


def _caches(model: nn.Module, text_config: Any, kwargs: dict[str, Any]) -> bool:
    """Return whether a bare forward pass would make a cache of its own."""
    wanted = kwargs.get("use_cache")
    if wanted is None:
        wanted = getattr(text_config, "use_cache", True)
    return bool(wanted) and not model.training


def _after(model: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
    """Close the seam, and let the cache compress; `output` is None where the pass raised."""
    cache = cache_of(kwargs)
    if cache is not None and cache.turn.stepping:
        return
    if cache is None:
        cache = cache_of({"past_key_values": getattr(output, "past_key_values", None)})
    if cache is None or cache.open is None:
        return
    cache.close()
    if output is None:
        cache.fail()
        return
    cache.end()
    if cache.recorder is not None:
        cache.recorder.record(cache)
        cache.recorder = None


def _forget_copied_hooks(model: nn.Module) -> None:
    """Remove our hooks from a model that was copied while it had them."""
    tables: Any = (
        (model._forward_pre_hooks, [model._forward_pre_hooks_with_kwargs]),
        (
            model._forward_hooks,
            [model._forward_hooks_with_kwargs, model._forward_hooks_always_called],
        ),
    )
    for hooks, flags in tables:
        for number in [n for n, hook in hooks.items() if hook in (_before, _after)]:
            for table in (hooks, *flags):
                table.pop(number, None)

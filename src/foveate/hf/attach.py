"""How a model meets our cache: two hooks and a `generate` that knows the prompt's length."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from foveate.errors import CacheError, InputError, UnsupportedModel
from foveate.hf import kinds
from foveate.hf.attention import attention_seam
from foveate.hf.support import check_model, unwrap

_attachments: weakref.WeakKeyDictionary[nn.Module, Attachment] = weakref.WeakKeyDictionary()


class SeamCache(Protocol):
    """What the hooks ask of a compressed cache."""

    lease: Lease
    open: ExitStack | None
    seen: int

    def expect(self, length: int | None) -> None:
        """State at which length the prompt is complete."""

    def begin(self, kwargs: dict[str, Any], tokens: int) -> None:
        """Prepare for a forward pass."""

    def end(self) -> None:
        """Finish a forward pass."""

    def fail(self) -> None:
        """Note that a forward pass raised."""

    def place(self, kwargs: dict[str, Any], tokens: int) -> None:
        """Set the positions of the new tokens where the method moves them."""


class Owner(Protocol):
    """What a context gives to every `generate` call inside it."""

    def new_cache(self) -> Any:
        """Return a fresh cache."""

    def record(self, cache: Any) -> None:
        """Take the report of a finished call."""


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
        before = model.register_forward_pre_hook(_before, with_kwargs=True)
        after = model.register_forward_hook(_after, with_kwargs=True, always_call=True)
        self._take_off = [before.remove, after.remove, _replace_generate(model)]

    def release(self) -> None:
        """Take the hooks off after the last use."""
        self._uses -= 1
        if self._uses == 0:
            while self._take_off:
                self._take_off.pop()()

    def placeholder(self, kwargs: Any) -> Tensor | None:
        """Return the embedding of the image placeholder, for calls with embeddings and features."""
        model, ids = self._model(), kinds.visual_ids(self.config)
        if (
            model is None
            or not ids
            or kwargs.get("input_ids") is not None
            or not kinds.has_features(kwargs)
        ):
            return None
        table: Any = model.get_input_embeddings()  # type: ignore[operator]
        return table(torch.tensor(ids[0], device=kwargs["inputs_embeds"].device))


class Lease:
    """One use of an attachment; it ends when released, or when nothing refers to it any more."""

    def __init__(self, model: Any) -> None:
        model = unwrap(model)
        attachment = _attachments.get(model)
        if attachment is None:
            attachment = _attachments[model] = Attachment(model)
        self.attachment = attachment
        attachment.acquire()
        self.release = weakref.finalize(self, attachment.release)

    def __deepcopy__(self, memo: dict[int, Any]) -> Lease:
        return self


def _cache_of(kwargs: dict[str, Any]) -> SeamCache | None:
    """Return the compressed cache among the arguments of a call."""
    cache = kwargs.get("past_key_values")
    return cache if hasattr(cache, "lease") else None  # type: ignore[return-value]


def _new_tokens(kwargs: dict[str, Any]) -> int:
    """Return how many tokens a forward pass brings."""
    for name in ("input_ids", "inputs_embeds", "decoder_input_ids"):
        if kwargs.get(name) is not None:
            return int(kwargs[name].shape[1])
    raise InputError("neither input_ids nor inputs_embeds came; a forward pass needs one of them")


def _before(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Prepare the cache and open the attention seam, for this forward pass only."""
    if args:
        forward: Any = model.forward
        bound = inspect.signature(forward).bind_partial(*args, **kwargs).arguments
        kwargs = {**bound, **bound.pop("kwargs", {})}
        args = ()
    attachment = _attachments.get(model)
    if attachment is None:
        return None
    cache = _cache_of(kwargs)
    fresh = "past_key_values" not in kwargs or kwargs["past_key_values"] is None
    if fresh and attachment.session is not None and _caches(model, attachment.text_config, kwargs):
        cache = kwargs["past_key_values"] = attachment.session.new_cache()
    if cache is None:
        return (args, kwargs)
    if cache.lease.attachment is not attachment:
        raise CacheError(
            f"this cache was made for another {cache.lease.attachment.model_name}; make one with "
            "CompressedCache(model, method) for the model that runs"
        )
    tokens = _new_tokens(kwargs)
    cache.begin(kwargs, tokens)
    cache.place(kwargs, tokens)
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
    cache = _cache_of(kwargs)
    if cache is None:
        cache = _cache_of({"past_key_values": getattr(output, "past_key_values", None)})
    if cache is None or cache.open is None:
        return
    cache.open.close()
    cache.open = None
    if output is None:
        cache.fail()
    else:
        cache.end()


class _Generate:
    """The `generate` of an attached model: it tells the cache about the prompt."""

    def __init__(self, model: nn.Module, held: Callable[..., Any] | None) -> None:
        self.model = weakref.ref(model)
        self.held = held

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        model = self.model()
        assert model is not None
        return _generate(model, self.held or _own_generate(model), args, kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """Give a copy of the model its own plain `generate`: the copy is not attached."""
        model = self.model()
        return self.held or _own_generate(memo.get(id(model), model))


def _own_generate(model: Any) -> Callable[..., Any]:
    """Return the `generate` of the model's class, bound to it."""
    return type(model).generate.__get__(model)


def _replace_generate(model: nn.Module) -> Callable[[], None]:
    """Give the model a `generate` that tells the cache about the prompt; return how to undo it."""
    if not hasattr(model, "generate"):
        return lambda: None
    held = model.__dict__.get("generate")
    model.__dict__["generate"] = _Generate(model, held)
    reference = weakref.ref(model)

    def restore() -> None:
        owner = reference()
        if owner is None:
            return
        if held is None:
            owner.__dict__.pop("generate", None)
        else:
            owner.__dict__["generate"] = held

    return restore


def _generate(
    model: nn.Module, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Run `generate` with a compressed cache that knows how long the prompt is."""
    attachment = _attachments[model]
    session = attachment.session
    cache = _cache_of(kwargs)
    if cache is None and (session is None or kwargs.get("past_key_values") is not None):
        return call(*args, **kwargs)
    _check_mode(model, args, kwargs)
    if cache is None:
        assert session is not None
        cache = kwargs["past_key_values"] = session.new_cache()
    cache.expect(_prompt_length(args, kwargs, cache.seen))
    try:
        output = call(*args, **kwargs)
    except CacheError as error:
        if cache.seen:
            raise
        raise UnsupportedModel(
            f"the generate of {attachment.model_name} hands over to a model inside it; compress "
            "that one (often `model.language_model`) instead"
        ) from error
    finally:
        cache.expect(None)
    if session is not None:
        session.record(cache)
    return output


def _check_mode(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Refuse the modes of `generate` that a compressed cache cannot serve."""
    config = kwargs.get("generation_config") or getattr(model, "generation_config", None)

    def option(name: str) -> Any:
        return kwargs[name] if name in kwargs else getattr(config, name, None)

    kind = option("cache_implementation")
    if kind not in (None, "dynamic", "hybrid"):
        raise UnsupportedModel(
            f"cache_implementation={kind!r} names another cache; a compressed cache takes its "
            "place, so leave that option out"
        )
    if kind is not None:
        kwargs["cache_implementation"] = None
    if option("use_cache") is False:
        raise InputError("use_cache=False leaves no cache to compress; leave that option out")
    if option("assistant_early_exit") is not None:
        raise UnsupportedModel(
            "assistant_early_exit drafts with layers of the same model and cache, which is not "
            "supported; use an assistant_model or prompt_lookup_num_tokens"
        )


def _prompt_length(args: tuple[Any, ...], kwargs: dict[str, Any], seen: int) -> int | None:
    """Return the logical length at which the prompt of a `generate` call is complete."""
    mask = kwargs.get("attention_mask")
    if isinstance(mask, Tensor) and mask.ndim == 2:
        return int(mask.shape[1])
    given = kwargs.get("input_ids", args[0] if args else kwargs.get("inputs"))
    if kwargs.get("inputs_embeds") is not None:
        given = kwargs["inputs_embeds"]
    if not isinstance(given, Tensor):
        return None
    return int(given.shape[1]) if given.shape[1] > seen else seen + int(given.shape[1])

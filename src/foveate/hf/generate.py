"""The `generate` of an attached model: it tells the cache about the prompt, and refuses modes."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Mapping
from contextlib import ExitStack, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor, nn

from foveate.errors import InputError, OutsidePass, UnsupportedModel
from foveate.hf.kinds import GRIDS
from foveate.method import When

if TYPE_CHECKING:
    from foveate.hf.attach import Attachment, Lease
    from foveate.hf.storage import Form
    from foveate.hf.turn import Turn


class SeamCache(Protocol):
    """What the hooks ask of a compressed cache."""

    lease: Lease
    open: ExitStack | None
    form: Form
    turn: Turn
    recorder: Owner | None  # takes the report of a bare forward pass in a context
    seen: int
    grids: Mapping[str, Any]  # what a `generate` call says of its images' patches

    def check_usable(self) -> None:
        """Raise if a pass failed half-way."""

    def expect(self, length: int | None, tokens: int | None = None) -> None:
        """State at which length the prompt is complete, and how many tokens may follow."""

    def begin(self, kwargs: dict[str, Any], tokens: int) -> None:
        """Prepare for a forward pass."""

    def end(self) -> None:
        """Finish a forward pass."""

    def fail(self) -> None:
        """Note that a forward pass raised."""

    def close(self) -> None:
        """Close the seam of a forward pass."""

    def place(self, kwargs: dict[str, Any], tokens: int) -> None:
        """Set the positions of the new tokens where the method moves them."""


class Owner(Protocol):
    """What a context gives to every `generate` call inside it."""

    def new_cache(self) -> Any:
        """Return a fresh cache."""

    def record(self, cache: Any) -> None:
        """Take the report of a finished call."""


def cache_of(kwargs: dict[str, Any]) -> SeamCache | None:
    """Return the compressed cache among the arguments of a call."""
    cache = kwargs.get("past_key_values")
    return cache if hasattr(cache, "lease") else None  # type: ignore[return-value]


class Generate:
    """The `generate` of an attached model: it tells the cache about the prompt."""

    def __init__(
        self, model: nn.Module, held: Callable[..., Any] | None, attachment: Attachment
    ) -> None:
        self.model = weakref.ref(model)
        self.held = held
        self.attachment = attachment
        self.__name__ = "generate"
        self.__signature__ = inspect.signature(held or _own_generate(model))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Generate with the model that this was put on."""
        model = self.model()
        assert model is not None
        call = self.held or _own_generate(model)
        return _generate(model, self.attachment, call, args, kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """Give a copy of the model its own plain `generate`: the copy is not attached."""
        model = self.model()
        return self.held or _own_generate(memo.get(id(model), model))


def _own_generate(model: Any) -> Callable[..., Any]:
    """Return the `generate` of the model's class, bound to it."""
    return type(model).generate.__get__(model)


def replace_generate(model: nn.Module, attachment: Attachment) -> Callable[[], None]:
    """Give the model a `generate` that tells the cache about the prompt; return how to undo it."""
    if not hasattr(model, "generate"):
        return lambda: None
    held = model.__dict__.get("generate")
    ours = model.__dict__["generate"] = Generate(model, held, attachment)
    reference = weakref.ref(model)

    def restore() -> None:
        owner = reference()
        if owner is None:
            return
        if owner.__dict__.get("generate") is not ours:  # somebody else's by now
            return
        if held is None:
            owner.__dict__.pop("generate", None)
        else:
            owner.__dict__["generate"] = held

    return restore


def _generate(
    model: nn.Module,
    attachment: Attachment,
    call: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """Run `generate` with a compressed cache that knows how long the prompt is."""
    session = attachment.session
    cache = cache_of(kwargs)
    if cache is None and (session is None or kwargs.get("past_key_values") is not None):
        return call(*args, **kwargs)
    owner: Any = cache or session
    _check_mode(model, args, kwargs, owner.method.when)
    if cache is None:
        assert session is not None
        cache = kwargs["past_key_values"] = session.new_cache()
    cache.check_usable()
    length = _prompt_length(args, kwargs, cache.seen)
    cache.expect(length, _new_tokens(model, args, kwargs, length))
    cache.turn.scene = cache.turn.scene.note(_prompt(args, kwargs), cache.seen, length)
    cache.grids = {name: kwargs[name] for name in GRIDS if kwargs.get(name) is not None}
    try:
        with attachment.steps.open() if cache.form.storage == "static" else nullcontext():
            output = call(*args, **kwargs)
    except OutsidePass as error:
        if _option(model, args, kwargs, "prefill_chunk_size") is not None:
            raise UnsupportedModel(
                "chunked prefill of this release of transformers goes past the hooks of the model; "
                "leave prefill_chunk_size out, or use transformers 5"
            ) from error
        raise UnsupportedModel(
            f"the generate of {attachment.model_name} hands over to a model inside it; compress "
            "that one (often `model.language_model`) instead"
        ) from error
    finally:
        cache.expect(None)
        cache.grids = {}
        if cache.open is not None:  # torch calls no hook after an interrupt
            cache.close()
            cache.fail()
    if session is not None:
        session.record(cache)
    return output


def _option(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], name: str) -> Any:
    """Return an option of a `generate` call: a keyword, or part of a generation config."""
    given = kwargs.get("generation_config") or (args[1] if len(args) > 1 else None)
    config = given or getattr(model, "generation_config", None)
    return kwargs[name] if name in kwargs else getattr(config, name, None)


def _check_mode(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], when: When
) -> None:
    """Refuse the modes of `generate` that a compressed cache cannot serve."""
    option = partial(_option, model, args, kwargs)
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
    drafts = kwargs.get("assistant_model") or option("prompt_lookup_num_tokens")
    if when.follow is not None and drafts:
        raise UnsupportedModel(
            "eviction while decoding and assisted decoding came together, but what drafts push out "
            "does not come back when they are rejected; use every=0"
        )
    if when.positions == "compacted" and drafts:
        raise UnsupportedModel(
            "positions='compacted' and assisted decoding came together, but drafts are placed "
            "before the compressed length is known; use positions='original'"
        )
    if option("assistant_early_exit") is not None:
        raise UnsupportedModel(
            "assistant_early_exit drafts with layers of the same model and cache, which is not "
            "supported; use an assistant_model or prompt_lookup_num_tokens"
        )


def _prompt(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a `generate` call with the prompt's ids under their name."""
    ids = kwargs.get("input_ids", args[0] if args else kwargs.get("inputs"))
    return {**kwargs, "input_ids": ids}


def _prompt_length(args: tuple[Any, ...], kwargs: dict[str, Any], seen: int) -> int | None:
    """Return the logical length at which the prompt of a `generate` call is complete."""
    mask = kwargs.get("attention_mask")
    if isinstance(mask, Tensor) and mask.ndim == 2:
        return int(mask.shape[1])
    given = _prompt(args, kwargs)["input_ids"]
    if kwargs.get("inputs_embeds") is not None:
        given = kwargs["inputs_embeds"]
    if not isinstance(given, Tensor):
        return None
    return int(given.shape[1]) if given.shape[1] > seen else seen + int(given.shape[1])


def _new_tokens(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], prompt: int | None
) -> int | None:
    """Return how many tokens a `generate` call may add; None where it does not say."""
    tokens = _option(model, args, kwargs, "max_new_tokens")
    if tokens is None and prompt is not None:
        total = _option(model, args, kwargs, "max_length")
        tokens = None if total is None else total - prompt
    return None if tokens is None else max(int(tokens), 0)

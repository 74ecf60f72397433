"""Reading a prompt with transformers, up to the first token of the answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from foveate.budget import Even
from foveate.errors import InputError, UnsupportedModel
from foveate.hf import CompressedCache
from foveate.hf.rotation import rotary_modules
from foveate.hf.support import unwrap
from foveate.method import Method
from foveate.option import check_choice
from foveate.types import Int

__all__ = ["PADS", "Prefilled", "padded", "prefill"]

PADS = ("none", "next-best")


@dataclass(frozen=True, eq=False)
class Prefilled:
    """Prompts that were read: their cache, the token that follows each, and where it belongs.

    `positions` counts as the model's rotation does, in which an image may take less room than it
    has tokens.
    """

    cache: CompressedCache
    first: Int[Tensor, " B"]
    positions: Int[Tensor, " B"]


def padded(method: Method) -> Method:
    """Return the method with as many tokens in every layer and head as the largest keeps.

    Heads that keep fewer are filled up with the tokens that their ranking names next, when the
    prompt is read: afterwards those are gone.
    """
    return replace(method, budget=Even(method.budget))


def prefill(
    model: Any,
    inputs: Mapping[str, Any],
    method: Method,
    *,
    pad: str = "none",
    **settings: Any,
) -> Prefilled:
    """Read prompts, compress them, and return what `export` writes.

    `inputs` is what the processor returned; `pad="next-best"` takes `padded(method)`. The first
    token is the most likely one unless `settings`, those of `model.generate`, say otherwise.
    """
    check_choice("pad", pad, PADS)
    if settings.get("max_new_tokens", 1) != 1:
        raise InputError(
            f"max_new_tokens={settings['max_new_tokens']} came, but a prompt is read up to the "
            "first token of its answer; leave it out, and give vLLM max_tokens"
        )
    cache = CompressedCache(model, padded(method) if pad == "next-best" else method)
    settings = {"do_sample": False, "max_new_tokens": 1, **settings}
    with noted_positions(model, cache) as passes:
        tokens = model.generate(**inputs, **settings, past_key_values=cache)
    if not passes:
        raise UnsupportedModel(
            f"{type(model).__name__} has no rotary positions that are known, so that its keys "
            "cannot be handed over; run it with transformers"
        )
    last = passes[-1]
    if not bool((last == last[0]).all()):
        raise InputError(
            "a prompt ends with an image, behind which positions in a grid do not say where text "
            "goes on; put the question, or the end of the template, behind it"
        )
    positions = last[0] + 1
    if cache.shift is not None:
        positions = positions - cache.shift.to(positions.device)
    return Prefilled(cache, tokens[:, -1], positions.expand(len(tokens)))


@contextmanager
def noted_positions(model: Any, cache: CompressedCache) -> Iterator[list[Tensor]]:
    """Note to which positions [axes, B] each pass inside rotates its last token."""
    passes: list[Tensor] = []

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        positions = kwargs["position_ids"] if "position_ids" in kwargs else args[1]
        passes.append(positions[..., -1].reshape(-1, positions.shape[-2]))

    with ExitStack() as hooks:
        for module in rotary_modules(unwrap(model), cache.attachment.text_config):
            hook = module.register_forward_pre_hook(note, with_kwargs=True)
            hooks.callback(hook.remove)
        yield passes

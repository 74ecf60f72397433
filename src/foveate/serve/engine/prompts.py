"""From a chat to what a model reads, and what that will take; in a thread beside the engine's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jinja2 import TemplateError

from foveate.cli.answers import processed
from foveate.cli.models import Loaded
from foveate.errors import InputError
from foveate.hf.chunks import whole
from foveate.hf.kinds import visual_ids
from foveate.hf.support import optional
from foveate.serve.engine.asking import Ask, TooLarge
from foveate.serve.engine.footprint import Footprint
from foveate.serve.engine.request import Request
from foveate.serve.engine.sampling import Sampler
from foveate.serve.engine.words import Words

__all__ = ["Prompts"]


class Prompts:
    """Makes requests ready to be read; what they do not say is as in `default`."""

    def __init__(
        self, model: Any, processor: Any, footprint: Footprint, budget: int | None, default: Ask
    ) -> None:
        self._loaded = Loaded(type(model).__name__, model, processor)
        self._tokenizer = getattr(processor, "tokenizer", processor)
        self._footprint, self._budget, self._default = footprint, budget, default
        text = model.config.get_text_config(decoder=True)
        self._room: int | None = optional(text, "max_position_embeddings")
        self._visual = torch.tensor(visual_ids(model.config), dtype=torch.long)
        self._ends = _ends(model, self._tokenizer)

    def prepare(self, request: Request) -> None:
        """Fill in what the prompt says; raises what is wrong with it."""
        try:
            inputs = processed(self._loaded, [request.ask.messages])
        except TemplateError as error:
            raise InputError(
                f"the chat template of {self._loaded.name} refuses these messages: {error}"
            ) from error
        ids = inputs["input_ids"]
        if not ids.numel():
            raise InputError("the messages are empty; write a text, or send a picture")
        request.ask = replace(request.ask, messages=())  # whose pictures nobody needs again
        request.inputs, request.seen, request.prompt = inputs, ids[0].tolist(), ids.shape[1]
        request.visual = int(torch.isin(ids.cpu(), self._visual).sum())
        request.chunked = whole(self._loaded.model, inputs)
        self._limit(request)
        self._voice(request)

    def _limit(self, request: Request) -> None:
        """Say how long the answer may be, and what all of it takes."""
        most = request.ask.max_new_tokens or self._default.max_new_tokens or 1
        most = min(most, request.ask.most or most)
        if self._room is not None:
            if request.prompt >= self._room:
                raise TooLarge(
                    f"the prompt has {request.prompt:,} tokens, and the model reads "
                    f"{self._room:,} with the answer; send less text, or fewer or smaller pictures"
                )
            most = min(most, self._room - request.prompt)
        request.most = most
        request.reserved = self._footprint.of(request.prompt + most)
        if self._budget is not None and request.reserved > self._budget:
            raise TooLarge(
                f"a prompt of {request.prompt:,} tokens and an answer of {most:,} take "
                f"{request.reserved:,} bytes of keys and values while they are read, and there are "
                f"{self._budget:,}; ask for fewer tokens, or send smaller pictures"
            )

    def _voice(self, request: Request) -> None:
        """Say how tokens are chosen, and how they are spelt."""
        ask, default = request.ask, self._default
        temperature = default.temperature if ask.temperature is None else ask.temperature
        top_p = default.top_p if ask.top_p is None else ask.top_p
        config = getattr(self._loaded.model, "generation_config", None)
        request.sampler = Sampler(
            config, temperature or 0.0, 1.0 if top_p is None else top_p, ask.seed
        )
        request.words = Words(self._decode, (*ask.stop, *_stops(config)))
        request.spell = lambda token: str(self._tokenizer.decode([token]))
        request.ends = self._ends

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))


def _stops(config: Any) -> tuple[str, ...]:
    """Return the texts that end an answer by the generation config."""
    found = getattr(config, "stop_strings", None) or ()
    return (found,) if isinstance(found, str) else tuple(found)


def _ends(model: Any, tokenizer: Any) -> frozenset[int]:
    """Return the ids that end an answer."""
    config = getattr(model, "generation_config", None)
    found = getattr(config, "eos_token_id", None)
    if found is None:
        found = getattr(tokenizer, "eos_token_id", None)
    return frozenset([found] if isinstance(found, int) else found or ())

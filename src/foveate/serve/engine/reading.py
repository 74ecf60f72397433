"""How prompts are read, and how answers that must be alone go on: `generate`, a pass at a time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from foveate.cli.answers import placed
from foveate.serve.engine.request import Request
from foveate.serve.engine.turnstile import Paced

__all__ = ["reading"]


def reading(model: Any, request: Request, chunk: int | None) -> Paced:
    """Return the call that reads a prompt and hears its first token, or all if it is alone."""

    def call() -> None:
        size = {} if chunk is None or request.chunked else {"prefill_chunk_size": chunk}
        model.generate(
            **placed(request.inputs, model),
            **size,
            past_key_values=request.cache,
            max_new_tokens=1 if request.alone is None else request.most,
            do_sample=False,
            num_beams=1,
            stop_strings=None,  # the request's words know them
            logits_processor=LogitsProcessorList([_Hears(request)]),
        )

    return Paced(call)


class _Hears(LogitsProcessor):
    """Lets a request choose, and leaves `generate` no other choice."""

    def __init__(self, request: Request) -> None:
        self._request = request

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        request, paced = self._request, self._request.paced
        assert paced is not None and paced.logits is not None
        if not request.kv:
            request.note(request.cache.report(), paced.passes)
        token = request.seen[-1]
        if not request.ended:
            token = request.hear(paced.logits[0], int(paced.logits[0].argmax()))
        only = torch.full_like(scores, -torch.inf)
        only[:, token] = 0.0
        return only

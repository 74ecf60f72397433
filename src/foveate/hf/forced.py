"""Teacher forcing: what a model expects after every token of an answer that it is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile
from typing import Any

import torch
from torch import Tensor

from foveate.errors import InputError

__all__ = ["Prompt", "ends", "forced", "greedy", "mask_of", "padded", "read", "until_end"]


@dataclass(frozen=True, eq=False)
class Prompt:
    """A prompt that a cache holds: what comes next, where padding is, and where tokens lie."""

    logits: Tensor  # [B, vocabulary], of the first token of the answer
    mask: Tensor  # [B, T]
    positions: Tensor | None  # [..., B, 1], of the last token, as `generate` gave it


def mask_of(inputs: Mapping[str, Any]) -> Tensor:
    """Return where the prompt is no padding [B, T]; raises `InputError` without ids."""
    ids = inputs.get("input_ids")
    if not isinstance(ids, Tensor):
        raise InputError(
            "the inputs have no input_ids; give what the processor returned, ids and images"
        )
    mask = inputs.get("attention_mask")
    return torch.ones_like(ids) if mask is None else mask


def generated(model: Any, inputs: Mapping[str, Any], cache: Any, tokens: int) -> Any:
    """Run greedy `generate` on a cache."""
    return model.generate(
        **inputs,
        past_key_values=cache,
        max_new_tokens=tokens,
        do_sample=False,
        num_beams=1,
        output_logits=True,
        return_dict_in_generate=True,
    )


def ends(model: Any) -> list[int]:
    """Return the ids that end an answer."""
    found = getattr(model.generation_config, "eos_token_id", None)
    return [] if found is None else list(found) if isinstance(found, list | tuple) else [found]


def greedy(model: Any, inputs: Mapping[str, Any], cache: Any, tokens: int) -> list[list[int]]:
    """Return what the model answers, row by row, the token that ends an answer included."""
    output = generated(model, inputs, cache, tokens).sequences
    return until_end(output[:, mask_of(inputs).shape[1] :].tolist(), ends(model))


def until_end(rows: Sequence[Sequence[int]], last: Sequence[int]) -> list[list[int]]:
    """Return rows of ids up to the first one that ends them, or is padding (negative)."""
    cut = []
    for row in rows:
        filled = list(takewhile(lambda token: token >= 0, row))
        stop = next((i for i, token in enumerate(filled) if token in last), len(filled))
        cut.append(filled[: stop + 1])
    return cut


def padded(rows: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """Return rows of ids as a tensor [B, A], filled up with each row's last token."""
    longest = max(len(row) for row in rows)
    filled = [[*row, *[row[-1]] * (longest - len(row))] for row in rows]
    return torch.tensor(filled, device=device)


def read(model: Any, inputs: Mapping[str, Any], cache: Any) -> Prompt:
    """Let `generate` read a prompt into a cache, with the positions that it would decode from."""
    places: list[Tensor | None] = []

    def note(_: Any, args: Any, kwargs: dict[str, Any]) -> None:
        places.append(kwargs.get("position_ids"))

    mask = mask_of(inputs)
    handle = model.register_forward_pre_hook(note, with_kwargs=True, prepend=True)
    try:
        output = generated(model, inputs, cache, 1)
    finally:
        handle.remove()
    last = None if places[-1] is None else places[-1][..., -1:]
    return Prompt(output.logits[0], mask, last)


def forced(
    model: Any, cache: Any, prompt: Prompt, answer: Tensor, *, stepwise: bool = False
) -> Tensor:
    """Return the logits [B, A, vocabulary] of every token of an answer [B, A].

    The first ones are the prompt's. All tokens but the last follow in one pass, or one by one where
    a cache evicts while decoding; a lone token does as well.
    """
    B, A = answer.shape
    count = max(A - 1, 1)
    edges = range(count + 1) if stepwise else (0, count)
    parts = [prompt.logits[:, None]]
    for start, stop in pairwise(edges):
        more: dict[str, Any] = {}
        if prompt.positions is not None:
            later = torch.arange(start + 1, stop + 1, device=prompt.positions.device)
            more["position_ids"] = prompt.positions + later
        output = model(
            input_ids=answer[:, start:stop],
            attention_mask=torch.cat([prompt.mask, prompt.mask.new_ones(B, stop)], -1),
            past_key_values=cache,
            use_cache=True,
            **more,
        )
        parts.append(output.logits)
    parts[0] = parts[0].to(parts[-1])
    return torch.cat(parts, 1)[:, :A]

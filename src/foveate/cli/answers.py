"""Asks a loaded model about images, with the full cache or a compressed one, and measures both."""

import inspect
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

import torch
from PIL import Image
from transformers import StoppingCriteria, StoppingCriteriaList

from foveate import Method, compress
from foveate.cache.report import CacheReport
from foveate.cli.models import Loaded
from foveate.errors import FoveateError, InputError
from foveate.hf.kinds import visual_ids
from foveate.hf.measure import native_bytes


@dataclass(frozen=True)
class Answer:
    """What came out, and what it took; kept tokens are the mean over layers and heads."""

    text: str
    tokens: int
    visual_total: int
    visual_kept: float
    bytes_full: int
    bytes_stored: int
    prefill_ms: float
    decode_ms: float | None
    notes: tuple[str, ...] = ()
    layers: tuple[dict[str, Any], ...] = field(default=(), repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the answer as plain values."""
        return asdict(self)


class _Clock(StoppingCriteria):
    """Notes the time after every token, and never stops anything."""

    def __init__(self) -> None:
        self.times = [time.perf_counter()]

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        if input_ids.is_cuda:
            torch.cuda.synchronize(input_ids.device)
        self.times.append(time.perf_counter())
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


def prepare(loaded: Loaded, images: Sequence[Image.Image], question: str) -> Any:
    """Return the model's inputs for images and then a question."""
    content: list[dict[str, Any]] = [{"type": "image", "image": image} for image in images]
    content.append({"type": "text", "text": question})
    return prepare_chats(loaded, [[{"role": "user", "content": content}]])


def prepare_chats(loaded: Loaded, chats: Sequence[Sequence[dict[str, Any]]]) -> Any:
    """Return the model's inputs for conversations, a row for each, padded on the left.

    A message has a role and a content of parts, {"type": "text", "text": ...} or {"type": "image",
    "image": ...}. Without a chat template, the texts and images follow each other as they are.
    """
    return placed(processed(loaded, chats), loaded.model)


def processed(loaded: Loaded, chats: Sequence[Sequence[Any]]) -> Any:
    """Return what the processor makes of conversations, where and in the type that it makes it."""
    processor = loaded.processor
    padding = {"padding": True, "padding_side": "left"} if len(chats) > 1 else {}
    try:
        if getattr(processor, "chat_template", "") is not None:
            return _templated(processor, chats, padding)
        return _concatenated(processor, chats, padding)
    except FoveateError:
        raise
    except ValueError as error:
        raise InputError(
            f"the processor of {loaded.name} refuses this prompt: {error}; try another image size "
            "or fewer images"
        ) from error


def _templated(processor: Any, chats: Sequence[Any], padding: dict[str, Any]) -> Any:
    known = inspect.signature(processor.apply_chat_template).parameters
    given = {"processor_kwargs": padding} if padding and "processor_kwargs" in known else padding
    return processor.apply_chat_template(
        list(chats) if len(chats) > 1 else chats[0],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        **given,
    )


def _concatenated(processor: Any, chats: Sequence[Any], padding: dict[str, Any]) -> Any:
    token = str(getattr(processor, "image_token", None) or "")
    texts, images = [], []
    for chat in chats:
        parts = [part for message in chat for part in message["content"]]
        texts.append("".join(part.get("text", token) for part in parts))
        images.append([part["image"] for part in parts if part["type"] == "image"])
    if len(chats) == 1:
        return processor(text=texts[0], images=images[0] or None, return_tensors="pt")
    return processor(
        text=texts, images=images if any(images) else None, return_tensors="pt", **padding
    )


def placed(inputs: Any, model: Any) -> Any:
    """Return inputs on the device of a model, numbers in its type."""
    inputs = inputs.to(model.device)
    for name, value in inputs.items():
        if torch.is_tensor(value) and value.is_floating_point():
            inputs[name] = value.to(model.dtype)
    return inputs


def answer(
    loaded: Loaded, inputs: Any, method: Method | None, max_new_tokens: int, **settings: Any
) -> Answer:
    """Return the model's greedy answer; without a method, the cache stays full and native.

    `settings` are those of `compress`: storage, quantized.
    """
    return told(loaded, inputs, method, max_new_tokens, **settings).answer


@dataclass(frozen=True, eq=False)
class Told:
    """An answer, its token ids, and the report of the compressed cache that gave it."""

    answer: Answer
    ids: list[int]
    report: CacheReport | None = None


def told(
    loaded: Loaded, inputs: Any, method: Method | None, max_new_tokens: int, **settings: Any
) -> Told:
    """Return the same answer as `answer`, with all that the cache tells about it."""
    if method is None:
        return _full(loaded, inputs, max_new_tokens)
    with compress(loaded.model, method, **settings) as session:
        output, clock = _generate(loaded, inputs, max_new_tokens)
    report, new = session.report, _new_ids(loaded, inputs, output)
    found = Answer(
        _words(loaded, new),
        len(new),
        visual_total=report.total_visual,
        visual_kept=report.kept_visual,
        bytes_full=report.bytes_full,
        bytes_stored=report.bytes_stored,
        **_milliseconds(clock),
        notes=report.notes,
        layers=tuple(report.to_dict()["layers"]),
    )
    return Told(found, new, report)


def _full(loaded: Loaded, inputs: Any, max_new_tokens: int) -> Told:
    output, clock = _generate(loaded, inputs, max_new_tokens)
    ids = torch.tensor(visual_ids(loaded.model.config), device=inputs["input_ids"].device)
    visual = int(torch.isin(inputs["input_ids"], ids).sum())
    count, new = cache_bytes(output.past_key_values), _new_ids(loaded, inputs, output)
    found = Answer(
        _words(loaded, new),
        len(new),
        visual_total=visual,
        visual_kept=visual,
        bytes_full=count,
        bytes_stored=count,
        **_milliseconds(clock),
    )
    return Told(found, new)


def _generate(loaded: Loaded, inputs: Any, max_new_tokens: int) -> tuple[Any, _Clock]:
    clock = _Clock()
    output = loaded.model.generate(
        **inputs,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        stopping_criteria=StoppingCriteriaList([clock]),
        return_dict_in_generate=True,
    )
    return output, clock


def _new_ids(loaded: Loaded, inputs: Any, output: Any) -> list[int]:
    skip = 0 if loaded.model.config.is_encoder_decoder else inputs["input_ids"].shape[1]
    new: list[int] = output.sequences[0, skip:].tolist()
    return new


def _words(loaded: Loaded, new: list[int]) -> str:
    return str(loaded.processor.decode(new, skip_special_tokens=True)).strip()


def _milliseconds(clock: _Clock) -> dict[str, Any]:
    steps = [1000 * (b - a) for a, b in pairwise(clock.times)]
    return {
        "prefill_ms": steps[0] if steps else 0.0,
        "decode_ms": statistics.median(steps[1:]) if steps[1:] else None,
    }


def cache_bytes(cache: Any) -> int:
    """Return the bytes that a native cache holds: keys, values, and states of recurrent layers."""
    return sum(native_bytes(layer) for layer in cache.layers)

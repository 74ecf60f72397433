"""Asks a loaded model the samples of a task, and notes what the cache held after the prompt."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import DynamicCache, StoppingCriteria, StoppingCriteriaList

from foveate import CompressedCache, Method
from foveate.cli.answers import cache_bytes, prepare_chats
from foveate.cli.images import open_image
from foveate.cli.models import Loaded
from foveate.errors import InputError
from foveate.eval.asking.turns import Seen, together
from foveate.eval.task import Message, Part, Sample, Task
from foveate.hf.encoded import Encoded
from foveate.hf.kinds import visual_ids
from foveate.hf.replayed import Replayed

__all__ = ["Answerer", "Told", "conversation"]

Measures = Callable[..., Sequence[Mapping[str, float]]]


@dataclass(frozen=True)
class Told:
    """One answer, and what the cache held after the last prompt.

    `kept` is the share of the row's visual tokens that is stored, over layers and heads. Bytes are
    those of the batch, shared evenly by its rows: rows are padded to the longest. `prompt` is a
    digest of the last prompt's token ids and of the pixels of its images. `seconds` lack the
    reading of a prompt that came just before, for another method.
    """

    said: str
    prompt: str
    kept: float
    bytes_stored: int
    bytes_full: int
    seconds: float
    measures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Answerer:
    """A model that answers samples, greedily, with the full cache or a compressed one.

    `storage` and `quantized` are those of `CompressedCache`. `repeats` says that a prompt may come
    for several methods, one right after the other, so that the last is worth remembering.
    """

    loaded: Loaded
    storage: str = field(default="dense", kw_only=True)
    quantized: str | None = field(default=None, kw_only=True)
    repeats: bool = field(default=True, kw_only=True)
    encoded: Encoded = field(default_factory=Encoded, init=False, repr=False, compare=False)
    replayed: Replayed = field(default_factory=Replayed, init=False, repr=False, compare=False)

    def answers(
        self,
        task: Task,
        samples: Sequence[Sample],
        method: Method | None,
        *,
        measures: Measures | None = None,
    ) -> list[Told]:
        """Return an answer for each sample; without a method, the cache stays full and native.

        `measures` is called as `measures(loaded, inputs, method, max_new_tokens, said_ids=...,
        storage=..., quantized=...)` for every batch of one turn, and returns named numbers for each
        row, as `foveate.eval.fidelity.Fidelities` does; later turns have none.
        """
        told: dict[int, Told] = {}
        for rows in self._groups(samples, method):
            batch = _Batch(self, task, [samples[row] for row in rows], method)
            told |= zip(rows, batch.run(measures), strict=True)
        return [told[row] for row in range(len(samples))]

    def _groups(self, samples: Sequence[Sample], method: Method | None) -> Iterator[list[int]]:
        """Yield the rows of one batch after the other: as many turns, and alone where they must."""
        by_turns: dict[int, list[int]] = {}
        for row, sample in enumerate(samples):
            _check(sample)
            by_turns.setdefault(len(sample.turns), []).append(row)
        for turns, rows in by_turns.items():
            if turns == 1 or together(self.loaded.model, method):
                yield rows
            else:
                yield from ([row] for row in rows)


def _check(sample: Sample) -> None:
    if not sample.turns:
        raise InputError(f"sample {sample.id} has no turn; give the messages of one at least")
    later = (part for turn in sample.turns[1:] for message in turn for part in message.parts)
    if any(not isinstance(part, str) for part in later):
        raise InputError(
            f"sample {sample.id} has an image in a later turn, which not every model can place "
            "there; put all images into the first turn"
        )


class _Batch:
    """Samples with as many turns, and the cache that lives through them."""

    def __init__(
        self, answerer: Answerer, task: Task, samples: Sequence[Sample], method: Method | None
    ) -> None:
        self.loaded, self.method = answerer.loaded, method
        self.memories = (answerer.encoded, answerer.replayed) if answerer.repeats else ()
        self.settings = {"storage": answerer.storage, "quantized": answerer.quantized}
        self.task, self.samples = task, samples
        self.chats: list[list[dict[str, Any]]] = [[] for _ in samples]
        self.cache: Any = (
            DynamicCache(config=self.loaded.model.config)
            if method is None
            else CompressedCache(self.loaded.model, method, **self.settings)  # type: ignore[arg-type]
        )
        self.seconds = 0.0

    def run(self, measures: Measures | None) -> list[Told]:
        """Answer all turns; what is told of is the last."""
        said: list[str] = []
        seen: Seen | None = None
        for turn in range(len(self.samples[0].turns)):
            for chat, sample in zip(self.chats, self.samples, strict=True):
                chat += conversation(sample.turns[turn])
            inputs = prepare_chats(self.loaded, self.chats)
            given = inputs if seen is None else seen.followed(inputs)
            sequences, held = self._generate(given)
            seen = Seen.of(self.loaded.model, given, sequences, self.cache.get_seq_length())
            said = self._words(sequences[:, given["input_ids"].shape[1] :])
            for chat, words in zip(self.chats, said, strict=True):
                chat.append({"role": "assistant", "content": [{"type": "text", "text": words}]})
        found: Sequence[Mapping[str, float]] = [{}] * len(said)
        if measures is not None and turn == 0:
            found = measures(
                self.loaded,
                inputs,
                self.method,
                self.task.max_new_tokens,
                said_ids=sequences[:, inputs["input_ids"].shape[1] :],
                **self.settings,
            )
        return [
            Told(
                words.strip(), digest, kept, held.stored, held.full, self.seconds / len(said), more
            )
            for words, digest, kept, more in zip(
                said, _digests(inputs, self.chats), held.kept, found, strict=True
            )
        ]

    def _generate(self, inputs: Any) -> tuple[Tensor, _Held]:
        watch = _AfterPrompt(lambda: self._held(inputs["input_ids"]))
        began = time.perf_counter()
        model: Any = self.loaded.model
        with ExitStack() as remembering:
            for memory in self.memories:
                remembering.enter_context(memory.around(model))
            sequences = model.generate(
                **inputs,
                past_key_values=self.cache,
                max_new_tokens=self.task.max_new_tokens,
                do_sample=False,
                stopping_criteria=StoppingCriteriaList([watch]),
            )
        self.seconds += time.perf_counter() - began
        assert watch.held is not None
        return sequences, watch.held

    def _held(self, ids: Tensor) -> _Held:
        """Return what the cache holds now."""
        rows = len(ids)
        if self.method is None:
            count = cache_bytes(self.cache) // rows
            return _Held([1.0] * rows, count, count)
        report = self.cache.report()
        places = torch.tensor(visual_ids(self.loaded.model.config), device=ids.device)
        kept = report.share(torch.isin(ids, places)).tolist()
        return _Held(kept, report.bytes_full // rows, report.bytes_stored // rows)

    def _words(self, new: Tensor) -> list[str]:
        return [self.loaded.processor.decode(row, skip_special_tokens=True) for row in new]


@dataclass(frozen=True)
class _Held:
    """What a cache holds: a share for each row, and bytes of one row."""

    kept: list[float]
    full: int
    stored: int


class _AfterPrompt(StoppingCriteria):
    """Looks once, when the first token is chosen and the cache holds the prompt alone."""

    def __init__(self, look: Callable[[], _Held]) -> None:
        self.look = look
        self.held: _Held | None = None

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        if self.held is None:
            self.held = self.look()
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


def conversation(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Return messages as chat templates read them."""
    return [
        {"role": message.role, "content": [_part(part) for part in message.parts]}
        for message in messages
    ]


def _part(part: Part) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    image = open_image(str(part)) if isinstance(part, Path) else part
    return {"type": "image", "image": image}


def _digests(inputs: Any, chats: Sequence[Sequence[dict[str, Any]]]) -> list[str]:
    """Return a digest of each row's ids, without padding, and of its pictures."""
    found = []
    for ids, mask, chat in zip(inputs["input_ids"], inputs["attention_mask"], chats, strict=True):
        digest = hashlib.sha256(repr(ids[mask.bool()].tolist()).encode())
        for part in (part for message in chat for part in message["content"]):
            if part["type"] == "image":
                image: Image.Image = part["image"]
                digest.update(repr((image.mode, image.size)).encode() + image.tobytes())
        found.append(digest.hexdigest()[:16])
    return found

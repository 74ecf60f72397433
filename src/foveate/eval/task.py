"""What is asked and how answers are judged: tasks are values of a source, a prompt and a metric."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from PIL import Image

__all__ = ["Message", "Metric", "Part", "Sample", "Source", "Task", "unanswered"]

Part = str | Path | Image.Image  # text, an image file, or an image


@dataclass(frozen=True, eq=False)
class Message:
    """One message of a conversation, its texts and images in order."""

    role: Literal["user", "assistant"]
    parts: tuple[Part, ...]


@dataclass(frozen=True, eq=False)
class Sample:
    """One conversation to be continued, and what its last answer should be.

    `turns` holds what is said before each answer of the model: with two turns, the model answers
    the first, that answer joins the conversation, and the cache goes on to the second. `facts` are
    plain values that some metric or report reads, such as the box of a button, or where the answer
    is written.
    """

    id: str  # names the sample within its task, today and after a restart
    turns: tuple[tuple[Message, ...], ...]
    answers: tuple[str, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)


class Source(Protocol):
    """Where samples come from; its `repr` says all that they depend on."""

    def samples(self, number: int | None, seed: int) -> Sequence[Sample]:
        """Return so many samples, or all there are; a larger number begins with the same ones."""


def unanswered(sample: Sample) -> str | None:
    """Return what keeps a sample from being compared with its answers."""
    if not sample.answers:
        return "it has no answer"
    if not all(answer.strip() for answer in sample.answers):
        return "one of its answers is empty"
    return None


@dataclass(frozen=True)
class Metric:
    """A score between 0 and 1 for what was said, given the sample.

    `fault` says what a sample lacks to be scored, and None if it lacks nothing.
    """

    name: str
    score: Callable[[str, Sample], float] = field(compare=False, repr=False)
    fault: Callable[[Sample], str | None] = field(default=unanswered, compare=False, repr=False)


@dataclass(frozen=True)
class Task:
    """A source, the prompt that a question is put into, and the metric.

    `prompt` holds `{question}`; the source fills it. `family` is the heading under which reports
    put the task, `tokens` the visual tokens of a prompt where all prompts have as many.
    """

    name: str
    source: Source
    metric: Metric
    prompt: str = "{question}"
    max_new_tokens: int = 32
    family: str = ""
    tokens: int | None = None

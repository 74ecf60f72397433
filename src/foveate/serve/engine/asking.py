"""What a server's front and its engine say to each other: a request, and the events that follow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from foveate.cache.report import CacheReport
from foveate.errors import FoveateError, InputError
from foveate.method import Method

__all__ = [
    "Ask", "Busy", "Chance", "Done", "Event", "Failed", "Held", "Piece", "Stats", "TooLarge",
    "check_within",
]  # fmt: skip


class Busy(FoveateError):
    """The queue is full; the same request may be welcome later."""


class TooLarge(FoveateError):
    """The request can never be served: prompt and answer need more than there is."""


@dataclass(frozen=True)
class Ask:
    """One request: a chat in the form of `apply_chat_template`, and how to answer it.

    Parts of a message are {"type": "text", "text": ...} and {"type": "image", "image": PIL image}.
    `temperature` 0 is greedy; None for it, `top_p` or `max_new_tokens` is what the engine does by
    default. The answer has at most `most` tokens, whoever chose its length. `logprobs` asks for
    that many alternatives a token, None for no log-probabilities.
    `method` None is the engine's own; `full` asks for the whole cache; `held` asks for what is kept
    of the prompt, too.
    """

    messages: Sequence[Mapping[str, Any]]
    max_new_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    method: Method | None = None
    full: bool = False
    held: bool = False
    most: int | None = None

    def __post_init__(self) -> None:
        check_within("max_new_tokens", self.max_new_tokens, 1)
        check_within("most", self.most, 1)
        check_within("temperature", self.temperature, 0, 100)
        check_within("top_p", self.top_p, 0, 1)
        check_within("seed", self.seed, -(1 << 63), (1 << 63) - 1)
        check_within("logprobs", self.logprobs, 0)
        if isinstance(self.stop, str):
            raise InputError(f"stop is the text {self.stop!r}; give a tuple of texts")


@dataclass(frozen=True)
class Chance:
    """A token, its log-probability (natural), and the likeliest alternatives."""

    token: int
    text: str
    logprob: float
    others: tuple[Chance, ...] = ()


@dataclass(frozen=True)
class Piece:
    """Some more text of an answer, with the tokens that it is made of where they were asked for."""

    text: str
    chances: tuple[Chance, ...] = ()


@dataclass(frozen=True, eq=False)
class Held:
    """What is kept of a prompt, whose ids these are; comes before the text, if it was asked for.

    Comes once more before the end, where a method went on to evict while the answer was written.
    """

    ids: tuple[int, ...]
    report: CacheReport


@dataclass(frozen=True)
class Done:
    """The end of an answer; `kv` says what the cache held: method, kept, bytes.

    `first` is the seconds from the request's coming to its first token, `seconds` those to its end.
    """

    reason: Literal["stop", "length", "cancelled"]
    prompt_tokens: int
    completion_tokens: int
    visual_tokens: int
    kv: Mapping[str, Any]
    first: float | None = field(default=None, compare=False)
    seconds: float | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Failed:
    """The end of a request that raised; `error` is one of ours where the request is to blame."""

    error: BaseException


@dataclass(frozen=True)
class Stats:
    """Counts since the start, what goes on now, and the bytes of keys and values between steps."""

    running: int
    waiting: int
    prefilling: int
    kv_bytes: int
    kv_bytes_peak: int
    kv_bytes_budget: int | None
    requests: int
    failures: int
    cancelled: int
    prompt_tokens: int
    tokens: int


Event = Held | Piece | Done | Failed


def check_within(name: str, value: float | None, least: float, most: float | None = None) -> None:
    """Raise `InputError` for a number that lies outside of what is allowed, or is none."""
    if value is None or (least <= value and (most is None or value <= most)):
        return
    allowed = f"at least {least}" if most is None else f"a number from {least} to {most}"
    raise InputError(f"{name} is {value}; give {allowed}")

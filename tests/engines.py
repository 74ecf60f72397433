"""Engines over tiny families, chats that name a prompt, and what plain `generate` answers."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import BatchFeature, LogitsProcessor

from families import SPECIAL, Family
from foveate.hf.cache import CompressedCache
from foveate.methods import method as method_named
from foveate.serve.engine import Engine
from foveate.serve.engine.asking import Ask, Done, Event, Failed, Piece

RECIPES = (
    (5, ("image", 0), 7),
    (4, ("image", 1), 9),
    (2, ("image", 0), 3, ("image", 2), 5),
    (11, ("image", 3), 2),
    (3, 9),
)
METHODS = {
    "full": {},
    "aircache": {"keep": 0.2},
    "adakv": {"keep": 0.3, "window": 4, "scope": "visual"},
    "foveate": {"keep": 0.3},
    "lookm": {"keep": 0.3},
    "h2o": {"keep": 0.4},
}
FIRST = 0x4E00  # what the token of id 0 is written as: three bytes a character


class Letters:
    """A tokenizer that writes every token as one character."""

    eos_token_id = None

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        return letters(ids)


class Prompter:
    """The processor of a tiny family: a chat's only text is the number of a recipe."""

    chat_template = "yes"

    def __init__(self, family: Family) -> None:
        self.family, self.tokenizer = family, Letters()

    def apply_chat_template(self, chat: Any, **options: Any) -> BatchFeature:
        number = chat[0]["content"][0]["text"]
        if number == "bad":
            raise ValueError("no such picture")
        return BatchFeature(self.inputs(int(number)))

    def inputs(self, number: int) -> dict[str, Any]:
        """What the model reads."""
        recipe = RECIPES[number % len(RECIPES)]
        return self.family.encode([self.family.prompt(recipe, number)])


@dataclass
class Heard:
    """What a sink was given."""

    events: list[Event] = field(default_factory=list)

    def __call__(self, event: Event) -> None:
        assert not self.ended, "an event came behind the end"
        self.events.append(event)

    @property
    def ended(self) -> bool:
        """Whether the end was told."""
        return bool(self.events) and isinstance(self.events[-1], Done | Failed)

    @property
    def end(self) -> Any:
        """The last event."""
        assert self.ended
        return self.events[-1]

    @property
    def text(self) -> str:
        """All text."""
        return "".join(x.text for x in self.events if isinstance(x, Piece))

    @property
    def chances(self) -> list[Any]:
        """All tokens that were told with their chances."""
        return [chance for x in self.events if isinstance(x, Piece) for chance in x.chances]

    @property
    def ids(self) -> list[int]:
        """The ids of the answer."""
        return [chance.token for chance in self.chances]


def made(name: str) -> Any:
    """A method by the name of its test."""
    return method_named(name, **METHODS[name])


def model_of(family: Family, **options: Any) -> Any:
    """A tiny model whose answers do not end by themselves."""
    model = family.build(**options)
    model.generation_config.suppress_tokens = list(SPECIAL)
    return model


def engine_of(family: Family, model: Any, **options: Any) -> Engine:
    """An engine over it."""
    return Engine(model, Prompter(family), **{"chunk": 7, "max_new_tokens": 10, **options})


def ask(number: int | str, name: str | None = None, **options: Any) -> Ask:
    """A request for the prompt of that number."""
    chat = [{"role": "user", "content": [{"type": "text", "text": str(number)}]}]
    method = None if name is None else made(name)
    return Ask(chat, method=method, **{"logprobs": 0, **options})


def wait_for(heard: Sequence[Heard], events: int | None = None) -> None:
    """Wait until all have heard their end, or so many events."""
    for _ in range(12_000):
        if all(len(x.events) >= events if events else x.ended for x in heard):
            return
        time.sleep(0.01)
    raise AssertionError("nothing came for two minutes")


def ready(engine: Engine) -> None:
    """Wait until every prompt that waits was prepared."""
    while not all(request.ready for request in engine._waiting):
        time.sleep(0.001)


def run(engine: Engine) -> None:
    """Step until all is done."""
    while engine.step():
        pass


def plain(family: Family, model: Any, number: int, name: str, tokens: int = 10, **more: Any) -> Any:
    """What `generate` answers under this method, alone.

    With `report`, what the cache tells of itself; with `said`, the logits on the way to those ids.
    """
    inputs = Prompter(family).inputs(number)
    cache = CompressedCache(model, made(name), storage="ragged")
    options: dict[str, Any] = {"max_new_tokens": tokens, "do_sample": False}
    if more.get("said"):
        options |= {"logits_processor": [Saying(more["said"], inputs["input_ids"].shape[1])]}
    output = model.generate(
        **inputs, **options, past_key_values=cache, return_dict_in_generate=True, output_logits=True
    )
    if more.get("report"):
        return cache.report()
    if more.get("said"):
        return [row[0] for row in output.logits]
    return output.sequences[0, inputs["input_ids"].shape[1] :].tolist()


class Saying(LogitsProcessor):
    """Has `generate` say these ids."""

    def __init__(self, ids: Sequence[int], prompt: int) -> None:
        self.ids, self.prompt = ids, prompt

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        only = torch.full_like(scores, -torch.inf)
        only[:, self.ids[input_ids.shape[1] - self.prompt]] = 0
        return only


def letters(ids: Sequence[int]) -> str:
    """How the tokenizer writes ids."""
    return "".join(chr(FIRST + int(token)) for token in ids)


def pieces(heard: Heard) -> list[str]:
    """The texts as they came."""
    return [x.text for x in heard.events if isinstance(x, Piece)]

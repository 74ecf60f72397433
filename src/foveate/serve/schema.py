"""The body of a chat request: OpenAI's fields that we answer to, and `kv`, which is ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from foveate.errors import nearest
from foveate.serve.problems import Problem

__all__ = ["ChatRequest", "Message", "PicturePart", "TextPart", "Two", "read"]

# Said by clients about themselves or their bills; nothing here depends on them.
IGNORED = frozenset(
    {"metadata", "parallel_tool_calls", "prompt_cache_key", "prompt_cache_retention"}
    | {"safety_identifier", "service_tier", "store", "user"}
)
# Fields of OpenAI that we do not have: only what changes nothing may come.
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "audio": (),
    "best_of": (1,),
    "echo": (False,),
    "frequency_penalty": (0,),
    "function_call": ("none",),
    "functions": ([],),
    "logit_bias": ({},),
    "modalities": (["text"],),
    "n": (1,),
    "presence_penalty": (0,),
    "prediction": (),
    "reasoning_effort": ("none",),
    "response_format": ({"type": "text"},),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "verbosity": ("medium",),
    "web_search_options": (),
}
MOST_COMPARED = 2000  # letters of an answer: what they have in common may take their third power
# Fields of an answer's message that we have no use for, and that have to be empty.
UNSAID = frozenset({"annotations", "audio", "function_call", "refusal", "tool_calls"})


class Part(BaseModel):
    """What all parts of a body have in common: no more fields than are known, no conversions."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class TextPart(Part):
    """Some text."""

    type: Literal["text"]
    text: str


class Address(Part):
    """Where a picture is; `detail` is read and does nothing."""

    url: str
    detail: Literal["auto", "low", "high"] | None = None


class PicturePart(Part):
    """A picture."""

    type: Literal["image_url"]
    image_url: Address


class Message(Part):
    """What somebody said; only the user has pictures."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[
        list[Annotated[TextPart | PicturePart, Field(discriminator="type")]],
        Field(min_length=1),
        BeforeValidator(lambda given: [_text(given)] if isinstance(given, str) else given),
    ]
    name: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _told_back(cls, given: Any) -> Any:
        """Leave out what an answer has without saying anything, when it comes back as a message."""
        if not isinstance(given, dict):
            return given
        return {key: value for key, value in given.items() if value or key not in UNSAID}

    @model_validator(mode="after")
    def _check(self) -> Message:
        if self.role != "user" and any(isinstance(part, PicturePart) for part in self.content):
            raise ValueError(f"a picture in a message of role {self.role}; give it to the user")
        return self


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


class StreamOptions(Part):
    """What a stream has besides text."""

    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


class Choice(BaseModel):
    """The method of a request; more fields are options of the method."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    method: str | None = None
    keep: float | int | Literal["auto"] | None = None


class ChatRequest(Part):
    """The body of `POST /v1/chat/completions`."""

    model: str
    messages: Annotated[list[Message], Field(min_length=1)]
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    seed: Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)] | None = None
    stop: str | list[str] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    kv: Choice | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        """Return the strings that end the answer."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @model_validator(mode="after")
    def _check(self) -> ChatRequest:
        if len(self.stops) > 4 or any(not 0 < len(word) <= 256 for word in self.stops):
            raise ValueError("stop: give up to 4 strings of 1 to 256 characters")
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs came without logprobs; give logprobs true, too")
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options came without stream; give stream true, too")
        if None not in (self.max_tokens, self.max_completion_tokens):
            raise ValueError("max_tokens and max_completion_tokens came; give one of them")
        return self


class Two(Part):
    """Two answers, to be told apart."""

    full: Annotated[str, Field(max_length=MOST_COMPARED)]
    said: Annotated[str, Field(max_length=MOST_COMPARED)]


BODY: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[str, Any])
KNOWN = {*ChatRequest.model_fields, *NEUTRAL, *IGNORED}


def read(body: bytes) -> ChatRequest:
    """Return the request, or raise the problem that names the field and what it may be."""
    try:
        given = BODY.validate_json(body)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)[0]
        raise Problem(400, f"the body is not a JSON object: {found['msg']}") from None
    try:
        return ChatRequest.model_validate(_known(given))
    except ValidationError as error:
        raise _told(error) from None


def _known(given: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that mean something, or raise for those that we cannot honour."""
    left = {}
    for name, value in given.items():
        if name in NEUTRAL:
            if value is not None and value not in NEUTRAL[name]:
                allowed = " or ".join(map(repr, NEUTRAL[name]))
                cure = f"leave it out{f', or give {allowed}' if allowed else ''}"
                raise Problem(
                    400,
                    f"{name} is not supported here; {cure}",
                    param=name,
                    code="unsupported_parameter",
                )
        elif name not in KNOWN:
            shown = name[:60]
            hint = nearest(shown, KNOWN) if len(name) < 60 else "leave it out"
            hint = hint if hint.startswith("did") else "leave it out"
            raise Problem(
                400, f"unknown field {shown!r}; {hint}", param=shown, code="unknown_parameter"
            )
        elif name not in IGNORED:
            left[name] = value
    return left


def _told(error: ValidationError) -> Problem:
    """Return the first thing that is wrong, with its place in the body."""
    found = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(step)[:60] for step in _steps(found["loc"]))
    message = found["msg"].removeprefix("Value error, ")[:400]  # which may quote what came
    return Problem(
        400,
        f"{place}: {message}" if place else message,
        param=place or None,
        code="missing_required_parameter" if found["type"] == "missing" else "invalid_value",
    )


def _steps(place: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Return a place without the kind of part, which is not in the body."""
    return place[:4] + place[5:] if place[2:3] == ("content",) else place

"""What goes back to clients, in OpenAI's shapes, with `kv` beside them."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from foveate.serve.engine.asking import Chance, Done, Piece

__all__ = ["Shape", "model"]

LEAST = -9999.0  # JSON has no minus infinity; OpenAI writes this


def model(name: str, created: int) -> dict[str, Any]:
    """Return a model as it is listed."""
    return {"id": name, "object": "model", "created": created, "owned_by": "foveate"}


@dataclass(frozen=True)
class Shape:
    """The parts of one answer that all its chunks share."""

    model: str
    logprobs: bool
    usage: bool
    method: Mapping[str, Any]
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, pieces: Sequence[Piece], done: Done) -> dict[str, Any]:
        """Return the whole answer."""
        message = {"role": "assistant", "content": "".join(piece.text for piece in pieces)}
        choice = {
            "index": 0,
            "message": {**message, "refusal": None},
            "logprobs": self._chances([one for piece in pieces for one in piece.chances]),
            "finish_reason": done.reason,
        }
        told = {"usage": _usage(done), "kv": {**done.kv, **self.method}}
        return {**self._head("chat.completion"), "choices": [choice], **told}

    def first(self) -> dict[str, Any]:
        """Return the chunk that opens a stream."""
        return self._chunk({"role": "assistant", "content": ""})

    def piece(self, piece: Piece) -> dict[str, Any]:
        """Return a chunk of text."""
        return self._chunk({"content": piece.text}, self._chances(piece.chances))

    def last(self, done: Done) -> list[dict[str, Any]]:
        """Return the chunk with the reason and `kv`, and the one with the usage if asked for."""
        chunks = [{**self._chunk({}, reason=done.reason), "kv": {**done.kv, **self.method}}]
        if self.usage:
            chunks.append({**self._chunk({}), "choices": [], "usage": _usage(done)})
        return chunks

    def _chunk(
        self,
        delta: Mapping[str, Any],
        logprobs: Mapping[str, Any] | None = None,
        reason: str | None = None,
    ) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        usage = {"usage": None} if self.usage else {}
        return {**self._head("chat.completion.chunk"), "choices": [choice], **usage}

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def _chances(self, chances: Sequence[Chance]) -> dict[str, Any] | None:
        if not self.logprobs:
            return None
        content = [
            {**_chance(one), "top_logprobs": [_chance(other) for other in one.others]}
            for one in chances
        ]
        return {"content": content, "refusal": None}


def _chance(chance: Chance) -> dict[str, Any]:
    whole = "\ufffd" not in chance.text  # else it is a part of a character
    return {
        "token": chance.text,
        "logprob": max(LEAST, chance.logprob),  # in this order NaN is LEAST, too
        "bytes": list(chance.text.encode()) if whole else None,
    }


def _usage(done: Done) -> dict[str, Any]:
    return {
        "prompt_tokens": done.prompt_tokens,
        "completion_tokens": done.completion_tokens,
        "total_tokens": done.prompt_tokens + done.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": 0, "image_tokens": done.visual_tokens},
    }

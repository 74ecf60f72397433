"""What was asked and answered, piece by piece: tokens of a prompt, and what two answers share."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from itertools import groupby
from typing import Any

__all__ = ["Piece", "difference", "prompt"]

Piece = dict[str, Any]


def prompt(processor: Any, ids: Sequence[int], pictures: Sequence[int | None]) -> list[Piece]:
    """Return the tokens of a prompt: each text token, and each run of one picture's visual tokens.

    `pictures` has, for each token, the number of its picture, -1 for a visual token without a
    place on one, and None for text.
    """
    tokenizer = getattr(processor, "tokenizer", processor)
    special = set(getattr(tokenizer, "all_special_ids", ()))
    pieces: list[Piece] = []
    for picture, run in groupby(zip(ids, pictures, strict=True), key=lambda pair: pair[1]):
        tokens = [token for token, _ in run]
        if picture is not None:
            pieces.append({"visual": len(tokens), "picture": picture})
        else:
            pieces += [{"text": _text(tokenizer, x), "special": x in special} for x in tokens]
    return pieces


def _text(tokenizer: Any, token: int) -> str:
    """Return what a token is written as, with the space before it."""
    text = str(tokenizer.decode([token], skip_special_tokens=False))
    name = str(tokenizer.convert_ids_to_tokens(token))
    return " " + text if name.startswith("▁") and not text.startswith(" ") else text


def difference(full: str, said: str) -> list[tuple[str, str]]:
    """Return two answers as one text: parts of both ("same"), of one only ("full" or "said").

    >>> difference("A red car", "A blue car")
    [('same', 'A '), ('full', 'red '), ('said', 'blue '), ('same', 'car')]
    >>> difference("1890", "190")  # single words by their letters
    [('same', '1'), ('full', '8'), ('same', '90')]
    """
    before, after = (re.findall(r"\S+\s*", text) for text in (full, said))
    if len(before) == len(after) == 1:
        before, after = list(full), list(said)
    bare = [word.strip() for word in before], [word.strip() for word in after]
    parts: list[tuple[str, str]] = []
    matcher = difflib.SequenceMatcher(None, *bare, autojunk=False)
    for kind, a, b, c, d in matcher.get_opcodes():
        if kind == "equal":
            parts.append(("same", "".join(after[c:d])))
        else:
            parts += [("full", "".join(before[a:b])), ("said", "".join(after[c:d]))]
    return [part for part in parts if part[1]]

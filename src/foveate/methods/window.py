"""What all presets with an observation window share: who observes and stays, and the pooling."""

from __future__ import annotations

from typing import Literal

from foveate.method import Scope, Score
from foveate.methods.accounting import check_room, scope_named
from foveate.option import check_choice, check_count, plain_keep
from foveate.scope import All
from foveate.score import Attention, LastRows, Pooled

__all__ = [
    "PoolOver",
    "Pooling",
    "WindowOf",
    "pooling_of",
    "rows_of",
    "window_scope",
    "window_score",
]

Pooling = Literal["avg", "max", "none"]
WindowOf = Literal["text", "any"]
PoolOver = Literal["rows", "spans", "sequence"]


def rows_of(window: int, window_of: str) -> LastRows:
    """Return who observes: the last tokens of the text behind the last image, or of the prompt."""
    check_count("window", window, least=1)
    check_choice("window_of", window_of, ("text", "any"))
    return LastRows(window, "after_last_visual" if window_of == "text" else "any")


def window_scope(keep: float | int, window: int, window_of: str, scope: str) -> Scope:
    """Return which tokens may go: natively all but the window, which the budget includes."""
    rows_of(window, window_of)
    check_room(plain_keep(keep), window, "window", scope)
    return scope_named(scope, All(recent=window, recent_of=window_of))


def pooling_of(score: Score, kernel: int, pooling: str, pool_over: str) -> Score:
    """Return the score pooled; all options are checked, also those it does not use."""
    check_choice("pooling", pooling, ("avg", "max", "none"))
    made = Pooled(score, kernel, "avg" if pooling == "none" else pooling, pool_over)
    return score if pooling == "none" or kernel == 1 else made


def window_score(window: int, kernel: int, pooling: str, window_of: str, pool_over: str) -> Score:
    """Return the mean attention of the window's rows per key-value head, pooled."""
    seen = Attention(rows_of(window, window_of), "full", "per_kv_head", "mean")
    return pooling_of(seen, kernel, pooling, pool_over)

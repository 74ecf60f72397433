"""keep="auto": as many tokens as it takes to hold a share of what the question looks at."""

from __future__ import annotations

from dataclasses import replace

from foveate.budget import Reach
from foveate.errors import MethodError
from foveate.method import Method, Score
from foveate.score import (
    Attention,
    Density,
    Described,
    Grounded,
    Mixed,
    PerImage,
    Pooled,
    Spread,
)

__all__ = ["AUTO", "until", "weighs"]

AUTO = "auto"


def weighs(score: Score) -> bool:
    """Return whether the numbers of a score, or what its budgets are drawn from, are attention."""
    if isinstance(score, Attention):
        return score.statistic != "rate"
    if isinstance(score, Pooled):
        return score.how == "avg" and weighs(score.score)
    if isinstance(score, Described | PerImage | Spread | Mixed):
        return weighs(score.score)
    return isinstance(score, Density | Grounded)


def until(name: str, made: Method, mass: float, over: str, others: list[str]) -> Method:
    """Return the method with as many tokens as hold the share `mass` of its scores.

    Raises `MethodError` if these are no attention; `others` names methods whose scores are.
    """
    if not weighs(made.score):
        raise MethodError(
            f"keep='auto' keeps a share of attention, and {name} ranks by other numbers "
            f"({made.score}); give keep as a number, or take one of {', '.join(others)}"
        )
    return replace(made, budget=Reach(mass, over))

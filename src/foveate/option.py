"""What the options of a method may be; every part checks its own when it is made."""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from foveate.errors import MethodError, nearest

__all__ = [
    "Choice",
    "Count",
    "Flag",
    "Keep",
    "Number",
    "Share",
    "Words",
    "check_choice",
    "check_count",
    "check_flag",
    "check_number",
    "check_odd",
    "check_share",
    "plain_keep",
]

if TYPE_CHECKING:
    Keep = float | int
    Share = float
    Number = float
    Count = int
    Choice = str
    Flag = bool
    Words = tuple[str, ...]
else:  # a shape-checking hook must not be quicker than the part, whose message says what to give
    Keep = Share = Number = Count = Choice = Flag = Words = Any


def check_choice(name: str, value: object, allowed: Iterable[str]) -> None:
    """Raise `MethodError` unless `value` is one of the `allowed` words."""
    allowed = tuple(allowed)
    if not isinstance(value, str) or value not in allowed:
        hint = nearest(value, allowed) if isinstance(value, str) else ""
        hint = f"; {hint}" if hint.startswith("did") else ""  # the words themselves come first
        words = ", ".join(repr(word) for word in allowed)
        raise MethodError(f"{name}={value!r} is not known; give one of {words}{hint}")


def check_count(name: str, value: object, least: int = 0) -> None:
    """Raise `MethodError` unless `value` is a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < least:
        raise MethodError(f"{name}={value!r} cannot be used; give a whole number, {least} or more")


def check_flag(name: str, value: object) -> None:
    """Raise `MethodError` unless `value` is True or False."""
    if not isinstance(value, bool):
        raise MethodError(f"{name}={value!r} cannot be used; give True or False")


def check_number(
    name: str, value: object, least: float = 0.0, most: float = math.inf, open_end: bool = False
) -> None:
    """Raise `MethodError` unless `value` is a finite number from `least` to `most`.

    With `open_end` the least number itself is no value.
    """
    number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    fits = math.isfinite(number) and least <= number <= most
    if not fits or (open_end and number == least):
        first = f"above {least:g}" if open_end else f"of at least {least:g}"
        last = f" and at most {most:g}" if most < math.inf else ""
        raise MethodError(f"{name}={value!r} cannot be used; give a number {first}{last}")


def check_odd(name: str, value: object) -> None:
    """Raise `MethodError` unless `value` is an odd number of at least 1."""
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not whole or int(value) < 1 or int(value) % 2 == 0:  # type: ignore[call-overload]
        raise MethodError(f"{name}={value!r} cannot be used; give an odd number, 1 or more")


def check_share(name: str, value: object) -> None:
    """Raise `MethodError` unless `value` is a number from 0 to 1."""
    number = isinstance(value, Real) and not isinstance(value, bool)
    if not number or not 0 <= float(value) <= 1:  # type: ignore[arg-type]
        raise MethodError(f"{name}={value!r} cannot be used; give a number from 0 to 1")


def plain_keep(keep: object) -> float | int:
    """Return `keep` as a plain float in (0, 1] or int of at least 1, or raise `MethodError`."""
    advice = (
        "give a float above 0 and up to 1.0 (the share of the candidate tokens that is kept) "
        "or an int of at least 1 (tokens per head and layer)"
    )
    if isinstance(keep, str):
        advice += "; foveate.method(name, keep='auto', mass=0.95) takes as many as that needs"
    if isinstance(keep, bool) or not isinstance(keep, Real):
        raise MethodError(f"keep={keep!r} is a {type(keep).__name__}, not a number; {advice}")
    if isinstance(keep, Integral):
        if int(keep) < 1:
            raise MethodError(f"keep={keep!r} keeps nothing; {advice}")
        return int(keep)
    if not math.isfinite(keep) or not 0 < float(keep) <= 1:
        why = (
            "is not a share" if not math.isfinite(keep) or keep <= 0 else "is more than everything"
        )
        raise MethodError(f"keep={keep!r} {why}; {advice}")
    return float(keep)

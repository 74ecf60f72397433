"""What the options of a method may be; every part checks its own when it is made."""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Integral, Real

from foveate.errors import MethodError, nearest

__all__ = ["check_choice", "check_count", "check_keep", "check_share"]


def check_choice(name: str, value: object, allowed: Iterable[str]) -> None:
    """Raise `MethodError` unless `value` is one of the `allowed` words."""
    allowed = tuple(allowed)
    if not isinstance(value, str) or value not in allowed:
        hint = f"; {nearest(value, allowed)}" if isinstance(value, str) else ""
        words = ", ".join(repr(word) for word in allowed)
        raise MethodError(f"{name}={value!r} is not known; give one of {words}{hint}")


def check_count(name: str, value: object, least: int = 0) -> None:
    """Raise `MethodError` unless `value` is a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise MethodError(f"{name}={value!r} cannot be used; give a whole number, {least} or more")


def check_share(name: str, value: object) -> None:
    """Raise `MethodError` unless `value` is a number from 0 to 1."""
    number = isinstance(value, Real) and not isinstance(value, bool)
    if not number or not 0 <= float(value) <= 1:  # type: ignore[arg-type]
        raise MethodError(f"{name}={value!r} cannot be used; give a number from 0 to 1")


def check_keep(keep: object) -> None:
    """Raise `MethodError` unless `keep` is a float in (0, 1] or a whole number of at least 1."""
    advice = (
        "give a float above 0 and up to 1.0 (the share of the candidate tokens that is kept) "
        "or an int of at least 1 (tokens per head and layer)"
    )
    if isinstance(keep, bool) or not isinstance(keep, Real):
        raise MethodError(f"keep={keep!r} is a {type(keep).__name__}, not a number; {advice}")
    if isinstance(keep, Integral):
        if keep < 1:
            raise MethodError(f"keep={keep!r} keeps nothing; {advice}")
    elif not math.isfinite(keep) or not 0 < keep <= 1:
        why = (
            "is not a share" if not math.isfinite(keep) or keep <= 0 else "is more than everything"
        )
        raise MethodError(f"keep={keep!r} {why}; {advice}")

"""What `scope`, `every` and an int `keep` mean, alike for every preset."""

from __future__ import annotations

from typing import Literal

from foveate.errors import MethodError
from foveate.method import Follow, Scope, When
from foveate.option import check_choice, check_count
from foveate.schedule import AfterPrefill, WhileDecoding
from foveate.scope import All, Visual

__all__ = ["Accounting", "ScopeName", "cadence", "check_room", "scope_named"]

Accounting = Literal["native", "visual"]
ScopeName = Literal["visual", "native", "unified"]


def scope_named(scope: str, native: Scope | None = None) -> Scope:
    """Return the scope with that name: "native", the preset's own, or "visual".

    Presets whose own scope is visual have no `native`, and "unified" lets all their tokens go.
    """
    if native is not None:
        check_choice("scope", scope, ("native", "visual"))
        return native if scope == "native" else Visual()
    check_choice("scope", scope, ("visual", "native", "unified"))
    return All() if scope == "unified" else Visual()


def cadence(every: int | None, scope: str, follow: Follow, grows: bool = False) -> When:
    """Return when a preset with decode-time eviction compresses; None is its own cadence."""
    if every is None:
        every = 0 if scope == "visual" else 1
    check_count("every", every)
    if every and scope == "visual":
        raise MethodError(
            f"every={every} and scope='visual' contradict each other: under visual accounting what "
            "is generated stays; leave every out, or use scope='native'"
        )
    return WhileDecoding(follow, every, grows) if every else AfterPrefill()


def check_room(keep: float | int, pinned: int, what: str, scope: str = "native") -> None:
    """Raise `MethodError` where a number of tokens is less than what has to stay anyway."""
    if scope == "native" and isinstance(keep, int) and not isinstance(keep, bool) and keep < pinned:
        raise MethodError(
            f"keep={keep} is less than the {what}, {pinned} tokens, which stay inside the budget; "
            f"give keep={pinned} or more, or protect fewer"
        )

"""Which tokens observed: a method whose windows note whom they chose."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

from torch import Tensor

from foveate.method import Method
from foveate.score.window import Selection, Window
from foveate.types import Bool, Observation, TokenKinds

__all__ = ["Noting", "noting"]


@dataclass(frozen=True)
class Noting:
    """A window that chooses as another one does, and notes the members of every layer."""

    window: Window
    members: dict[int, Tensor] = field(repr=False, compare=False)  # per layer [B, T]

    def rows(self, kinds: TokenKinds) -> Bool[Tensor, "B T"]:
        """Return every token whose query may be needed."""
        return self.window.rows(kinds)

    def __call__(self, observation: Observation) -> Selection:
        """Return the members of the window in one layer."""
        chosen = self.window(observation)
        found = chosen.members.any(1).cpu()
        known = self.members.get(observation.layer)
        self.members[observation.layer] = found if known is None else found | known
        return chosen


def noting(method: Method) -> tuple[Method, dict[int, Tensor]]:
    """Return a method that does the same, and where the members of its windows will be noted."""
    members: dict[int, Tensor] = {}
    return replace(method, score=_watched(method.score, members)), members


def _watched(part: Any, members: dict[int, Tensor]) -> Any:
    """Return a score with all windows inside it, however deep, replaced by noting ones."""
    if not is_dataclass(part) or isinstance(part, type):
        return part
    changed = {}
    for one in fields(part):
        value = getattr(part, one.name)
        if one.name == "window" and isinstance(value, Window):
            changed[one.name] = Noting(value, members)
        elif (inner := _watched(value, members)) is not value:
            changed[one.name] = inner
    return replace(part, **changed) if changed else part

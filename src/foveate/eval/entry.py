"""Methods by name: rows of a grid, whose budget comes later."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from foveate.method import Method
from foveate.methods.own import made

__all__ = ["FULL", "Entry"]

Keep = float | int | str


@dataclass(frozen=True)
class Entry:
    """A preset, ours or `module:function`, with options; `label` is what tables call it.

    >>> Entry("snapkv", {"window": 16}).label
    'snapkv(window=16)'
    """

    preset: str
    options: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""

    def __post_init__(self) -> None:
        if not self.label:
            told = ", ".join(f"{name}={value!r}" for name, value in self.options.items())
            object.__setattr__(self, "label", f"{self.preset}({told})" if told else self.preset)

    def method(self, keep: Keep) -> Method | None:
        """Return the method at that budget; None for the untouched model."""
        if self.preset == "full":
            return None
        return made(self.preset, keep, **self.options)


FULL = Entry("full")

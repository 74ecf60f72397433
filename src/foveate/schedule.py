"""WHEN a cache is compressed."""

from __future__ import annotations

from dataclasses import dataclass

from foveate.errors import MethodError
from foveate.option import check_choice

__all__ = ["AfterPrefill"]

POSITIONS = ("original", "compacted")


@dataclass(frozen=True, slots=True)
class AfterPrefill:
    """Once, when the prompt has been read; with `recompress`, again after a turn that adds images.

    `positions` says where decoding continues: at the prompt's logical length ("original"), or at
    the number of entries kept ("compacted").
    """

    recompress: bool = False
    positions: str = "original"

    def __post_init__(self) -> None:
        if not isinstance(self.recompress, bool):
            raise MethodError(f"recompress={self.recompress!r} cannot be used; give True or False")
        check_choice("positions", self.positions, POSITIONS)

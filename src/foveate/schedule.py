"""WHEN a cache is compressed."""

from __future__ import annotations

from dataclasses import dataclass

from foveate.option import Choice, Flag, check_choice, check_flag

__all__ = ["AfterPrefill"]

POSITIONS = ("original", "compacted")


@dataclass(frozen=True, slots=True)
class AfterPrefill:
    """When the prompt has been read, and again (`recompress`) after a turn that adds images.

    What was compressed before stays as it is: a later turn ranks its own tokens among themselves.
    `positions` says where decoding continues: at the prompt's logical length ("original"), or at
    the number of entries kept ("compacted").
    """

    recompress: Flag = True
    positions: Choice = "original"

    def __post_init__(self) -> None:
        check_flag("recompress", self.recompress)
        check_choice("positions", self.positions, POSITIONS)

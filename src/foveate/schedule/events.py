"""WHEN a cache is compressed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from foveate.errors import MethodError
from foveate.method import Follow
from foveate.option import Choice, Count, Flag, check_choice, check_count, check_flag

__all__ = ["AfterPrefill", "WhileDecoding"]

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
    follow: ClassVar[None] = None
    every: ClassVar[int] = 0
    grows: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_flag("recompress", self.recompress)
        check_choice("positions", self.positions, POSITIONS)


@dataclass(frozen=True, slots=True)
class WhileDecoding:
    """When the prompt has been read, and then after `every` new tokens, as `follow` ranks them.

    A head has room for what the prompt kept (for the number itself where `keep` is one), or, if the
    room `grows`, for the same share of all that was seen. All tokens that come later, generated or
    of a later turn, compete with what is stored; a later turn adds to the room in proportion.
    """

    follow: Follow
    every: Count = 1
    grows: Flag = False
    recompress: ClassVar[bool] = True
    positions: ClassVar[str] = "original"

    def __post_init__(self) -> None:
        check_count("every", self.every, least=1)
        check_flag("grows", self.grows)
        if not isinstance(self.follow, Follow):
            raise MethodError(
                f"follow={self.follow!r} cannot rank slots; give foveate.schedule's OldestFirst, "
                "Accumulated or another rule that takes (stored, tiers)"
            )

"""What is known about the pictures of one row, and how a family's reader is given it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from foveate.hf.support import optional
from foveate.hf.views.prompt import Positions, Prompts, runs
from foveate.hf.views.shape import Shape

Size = tuple[int, int]  # width, height


@dataclass(frozen=True)
class Asked:
    """A batch as the model is given it, and the row whose pictures are wanted.

    `sizes` are those of the row's pictures before processing, None where they are unknown;
    `processor` holds the settings of the image processor, as far as they are known.
    """

    config: Any
    inputs: Mapping[str, Any]
    prompts: Prompts
    row: int
    sizes: tuple[Size, ...] | None = None
    processor: Any = None

    @property
    def vision(self) -> Any:
        """Return the config of the vision tower."""
        return optional(self.config, "vision_config")

    @property
    def positions(self) -> Positions:
        """Return where the row's image placeholders are."""
        return self.prompts.images[self.row]

    @property
    def runs(self) -> list[Positions]:
        """Return the row's image placeholders as runs of neighbours."""
        return runs(self.positions)

    def size(self, number: int) -> Size | None:
        """Return the size of one of the row's pictures, None where it is unknown."""
        if self.sizes is None or number >= len(self.sizes):
            return None
        return self.sizes[number]

    def setting(self, name: str, usual: Any) -> Any:
        """Return a setting of the image processor, or what checkpoints of the family have."""
        value = getattr(self.processor, name, None)
        return usual if value is None else value


Reader = Callable[[Asked], list[Shape]]

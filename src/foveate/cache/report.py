"""What a compressed cache tells about itself: measured bytes, kept tokens, the numbers behind."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from foveate.errors import InputError
from foveate.picture import Picture
from foveate.types import Bool, Float, Int

if TYPE_CHECKING:
    from foveate.report.overlay import Overlay


@dataclass(frozen=True, eq=False)
class LayerReport:
    """One layer: tokens, slots and their form, kept tokens (summed over rows, mean over heads)."""

    layer: int
    seen: int
    stored: int
    storage: str
    kept_visual: float
    kept_text: float
    bytes_full: int  # what an uncompressed cache would hold now
    bytes_stored: int  # what the stored keys and values hold, measured
    bytes_filled: int  # what the stored tokens need: no empty slots, no room behind them
    bytes_metadata: int  # the positions beside them
    bytes_peak: int  # the most this layer held
    seconds: float  # ranking and trimming the last turn, on the host's clock (a GPU: launching)
    explain: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class Scene(Protocol):
    """What is known of the pictures of a cache's prompts."""

    def pictures(
        self, row: int, sizes: Sequence[tuple[int, int]] | None, processor: Any
    ) -> tuple[Picture, ...]:
        """Return where the visual tokens of one row are on its pictures."""


@dataclass(frozen=True, eq=False)
class CacheReport:
    """A whole cache: totals, one record per compressible layer, and what was noticed."""

    method: str
    layers: tuple[LayerReport, ...]
    total_visual: int  # visual tokens of all rows
    total_text: int
    seconds: float  # ranking, deciding and packing, all layers and turns, on the host's clock
    native_layers: int  # layers that are left as the model has them
    bytes_native: int
    bytes_peak: int  # the most that all layers held at once, copies while packing included
    held: tuple[int, ...] = ()  # by all compressible layers, after each one of the last prompt
    notes: tuple[str, ...] = ()
    _kept: tuple[Tensor, ...] = field(default=(), repr=False, compare=False)
    _layers: tuple[int, ...] = field(default=(), repr=False, compare=False)
    _scene: Scene | None = field(default=None, repr=False, compare=False)

    @property
    def bytes_full(self) -> int:
        """Return what an uncompressed cache would hold."""
        return sum(layer.bytes_full for layer in self.layers) + self.bytes_native

    @property
    def bytes_stored(self) -> int:
        """Return what the stored keys and values hold, measured on their storages."""
        return sum(layer.bytes_stored for layer in self.layers) + self.bytes_native

    @property
    def bytes_filled(self) -> int:
        """Return what the stored tokens need, in the type that attention sees."""
        return sum(layer.bytes_filled for layer in self.layers) + self.bytes_native

    @property
    def kept_visual(self) -> float:
        """Return the visual tokens kept per layer and head, summed over rows, mean over layers."""
        return sum(layer.kept_visual for layer in self.layers) / max(len(self.layers), 1)

    @property
    def kept_text(self) -> float:
        """Return the prompt's text tokens kept, summed over rows, mean over layers and heads."""
        return sum(layer.kept_text for layer in self.layers) / max(len(self.layers), 1)

    @property
    def heads(self) -> int:
        """Return how many key-value heads may keep different tokens: 1 where all keep the same."""
        return max((positions.shape[1] for positions in self._kept), default=1)

    def kept(self, layer: int, row: int = 0, head: int = 0) -> Int[Tensor, " K"]:
        """Return the prompt positions that one head keeps, ascending; pads are never among them."""
        if layer not in self._layers:
            raise InputError(
                f"layer {layer} is not a compressed layer; those are {list(self._layers)}"
            )
        positions = self._kept[self._layers.index(layer)]
        positions = positions[row, head if positions.shape[1] > 1 else 0]
        return positions[positions >= 0].long()

    def pictures(
        self,
        row: int = 0,
        sizes: Sequence[tuple[int, int]] | None = None,
        processor: Any = None,
    ) -> tuple[Picture, ...]:
        """Return where on its pictures the visual tokens of one row of the prompt are.

        `sizes` are (width, height) of the row's images before processing, `processor` the image
        processor; some models' places depend on them. Raises `InputError` where they are unknown.
        """
        if self._scene is None:
            raise InputError("nothing has passed through this cache yet; call model.generate first")
        return self._scene.pictures(row, sizes, processor)

    def show(self, images: Sequence[Any] | None = None, **options: Any) -> Overlay:
        """Return a picture of what is kept, which a notebook shows and `save` writes as PNG.

        `images` are the row's pictures (Pillow), on which it is drawn; `layer` and `head` choose
        one of them in place of all, `row` another row, `processor` is the image processor.
        """
        from foveate.report.overlay import overlay

        return overlay(self, images, **options)

    def share(self, tokens: Bool[Tensor, "B T"]) -> Float[Tensor, " B"]:
        """Return which share of the marked prompt tokens each row holds, over layers and heads.

        Padding included, as the prompt came; 1 for rows without such tokens.
        """
        total = tokens.sum(-1)
        held = torch.zeros(len(tokens), dtype=torch.double)
        for positions in self._kept:
            marks = tokens.cpu()[:, None].expand(-1, positions.shape[1], -1)
            found = marks.gather(-1, positions.clamp(min=0).long()) & (positions >= 0)
            held += found.sum(-1).double().mean(-1)
        share = held / len(self._kept) / total.cpu().clamp(min=1)
        return torch.where(total.cpu() > 0, share, 1.0)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain numbers, lists and strings."""
        sizes = ("bytes_full", "bytes_stored", "bytes_filled", "bytes_peak")
        totals = (*sizes, "kept_visual", "kept_text")
        return {
            "method": self.method,
            **{name: getattr(self, name) for name in totals},
            "total_visual": self.total_visual,
            "total_text": self.total_text,
            "seconds": self.seconds,
            "native_layers": self.native_layers,
            "bytes_native": self.bytes_native,
            "held": list(self.held),
            "notes": list(self.notes),
            "layers": [{**vars(x), "explain": plain(x.explain)} for x in self.layers],
        }

    def save(self, path: str | Path) -> None:
        """Write the report, the kept positions and where pictures are (null: unknown) as JSON."""
        kept = {
            str(layer): [
                [self.kept(layer, b, h).tolist() for h in range(p.shape[1])]
                for b in range(p.shape[0])
            ]
            for layer, p in zip(self._layers, self._kept, strict=True)
        }
        rows = range(max((len(positions) for positions in self._kept), default=0))
        more = {"kept": kept, "pictures": [self._told(row) for row in rows]}
        Path(path).write_text(json.dumps({**self.to_dict(), **more}, indent=1) + "\n")

    def _told(self, row: int) -> list[dict[str, Any]] | None:
        """Return a row's pictures as plain values, None where their places are unknown."""
        try:
            return [picture.to_dict() for picture in self.pictures(row)]
        except InputError:
            return None

    def _forms(self) -> list[str]:
        """Return a line that says how layers are stored, if not all of them are dense."""
        names = [layer.storage for layer in self.layers]
        counts = ", ".join(f"{name} in {names.count(name)}" for name in dict.fromkeys(names))
        filled = f", {self.bytes_filled:,} bytes are filled" if "static" in names else ""
        return [f"storage: {counts} of {len(names)} layers{filled}"] if {*names} - {"dense"} else []

    def __str__(self) -> str:
        share = self.bytes_stored / self.bytes_full if self.bytes_full else 1.0
        lines = [
            f"{self.bytes_stored:,} of {self.bytes_full:,} bytes ({share:.1%}), "
            f"{self.kept_visual:,.1f} of {self.total_visual:,} visual tokens per layer and head",
            *self._forms(),
            f"method: {self.method}",
            *(f"note: {note}" for note in self.notes),
        ]
        return "\n".join(lines)


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mapping of tensors as lists."""
    return {k: v.tolist() if isinstance(v, torch.Tensor) else v for k, v in values.items()}

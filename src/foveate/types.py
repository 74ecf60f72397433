"""The letters of every shape in Foveate, and the records that travel between its parts.

B batch · H key-value heads · Hq query heads · G = Hq // H · D head width · T tokens seen
(logical length) · L tokens stored (physical length) · K tokens kept · R query rows · W window ·
V visual tokens · N layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from foveate.errors import InputError
from foveate.group import HeadGroup

if TYPE_CHECKING or find_spec("jaxtyping"):
    from jaxtyping import Bool, Float, Int
else:  # the shapes in the signatures are then documentation only

    class _Shape:
        def __class_getitem__(cls, item: tuple[type, str]) -> type:
            return item[0]

    Bool = Float = Int = _Shape

__all__ = [
    "GOES_FIRST", "GOES_LAST", "PAD", "PINNED", "STAYS", "TEXT", "VISUAL", "Bool", "Float",
    "Grid", "Int", "LayerKV", "Observation", "Plan", "Quota", "Ranking", "Rotation", "Stored",
    "TokenKinds",
]  # fmt: skip

PAD, TEXT, VISUAL = -1, 0, 1
GOES_FIRST, GOES_LAST, STAYS, PINNED = 0, 1, 2, 3  # tiers; PAD is the tier of pads
Grid = tuple[int, int, int]  # frames, rows and columns of visual tokens


@dataclass(frozen=True, eq=False)
class TokenKinds:
    """What every logical position of every row is: pad (-1), text (0) or visual (1 and above)."""

    kind: Int[Tensor, "B T"]
    span: Int[Tensor, "B T"]  # number of the image or video within its row, -1 elsewhere
    special: Bool[Tensor, "B T"]  # template tokens: begin, end, vision markers
    grids: tuple[tuple[Grid, ...], ...] = ()  # per row, one grid per span where it is known

    @staticmethod
    def of(kind: Tensor | TokenKinds, special: Tensor | None = None) -> TokenKinds:
        """Return kinds from [B, T]: bool (True is visual) or int (-1 pad, 0 text, >= 1 visual).

        Visual tokens beside each other belong to one image, unless their numbers differ.
        """
        if isinstance(kind, TokenKinds):
            return kind
        if not isinstance(kind, Tensor) or kind.ndim != 2:
            found = tuple(kind.shape) if isinstance(kind, Tensor) else type(kind).__name__
            raise InputError(f"kinds are {found}; give a tensor [B, T], one number per position")
        number = kind.long()
        kind = number.clamp(PAD, VISUAL)
        visual = kind == VISUAL
        before = torch.nn.functional.pad(number, (1, 0))[:, :-1]
        starts = visual & (number != before)
        span = torch.where(visual, starts.cumsum(-1) - 1, -1)
        if special is None:
            special = torch.zeros_like(visual)
        return TokenKinds(kind, span, special)

    @property
    def visual(self) -> Bool[Tensor, "B T"]:
        """Return where visual tokens are."""
        return self.kind == VISUAL

    @property
    def text(self) -> Bool[Tensor, "B T"]:
        """Return where text tokens are."""
        return self.kind == TEXT

    @property
    def valid(self) -> Bool[Tensor, "B T"]:
        """Return where anything but padding is."""
        return self.kind != PAD

    def to(self, device: torch.device) -> TokenKinds:
        """Return the kinds on another device, or themselves if they are there."""
        if self.kind.device == device:
            return self
        kind, span, special = (x.to(device) for x in (self.kind, self.span, self.special))
        return TokenKinds(kind, span, special, self.grids)

    def rows(self, index: Tensor) -> TokenKinds:
        """Return the kinds of the rows that `index` names, in its order."""
        grids = tuple(self.grids[i] for i in index.tolist()) if self.grids else ()
        return TokenKinds(self.kind[index], self.span[index], self.special[index], grids)

    def columns(self, start: int, stop: int) -> TokenKinds:
        """Return the kinds of positions `start` to `stop`; spans keep their numbers."""
        part, grids = slice(start, stop), self.grids
        if grids and stop < self.kind.shape[1]:  # what is added later is numbered on from here
            spans = [max(row, default=-1) + 1 for row in self.span[:, :stop].tolist()]
            grids = tuple(row[:count] for row, count in zip(grids, spans, strict=True))
        return TokenKinds(self.kind[:, part], self.span[:, part], self.special[:, part], grids)

    def followed_by(self, other: TokenKinds, cut: bool = False) -> TokenKinds:
        """Return the kinds of these positions and then those of `other`, spans numbered on.

        `cut` says that an image may go on in `other`: it has been one prompt.
        """
        shift = self.span.amax(-1, keepdim=True).clamp(min=-1) + 1 if self.span.numel() else 0
        if cut:
            shift = shift - (self.visual[:, -1:] & other.visual[:, :1]).long()
        span = torch.where(other.span >= 0, other.span + shift, -1)
        grids = self.grids
        if other.grids and (self.grids or not bool(self.visual.any())):
            grids = tuple(
                a + b
                for a, b in zip(self.grids or ((),) * len(other.grids), other.grids, strict=True)
            )
        return TokenKinds(
            torch.cat([self.kind, other.kind], -1),
            torch.cat([self.span, span], -1),
            torch.cat([self.special, other.special], -1),
            grids,
        )


if TYPE_CHECKING:
    _Kinds = TokenKinds
else:  # what an observation accepts; it always holds TokenKinds
    _Kinds = TokenKinds | Tensor


@dataclass(frozen=True, eq=False)
class Rotation:
    """How a model rotates: dimension d by `position * frequencies[d]`, together with d + D' / 2.

    `grid` says that visual tokens have positions in time, height and width (M-RoPE).
    """

    frequencies: Float[Tensor, " D"] | None
    grid: bool = False


@dataclass(frozen=True, eq=False)
class Observation:
    """What a method may look at in one layer: keys, values, chosen query rows and token kinds.

    Keys and queries are post-rotation. `rows` holds the logical position of every query row, -1
    where a row of the batch has fewer; without it the rows are the last R positions. `rotation` is
    None where nothing is known about it, and so is `layers`, the number of the model's layers.
    `group` is where the model's other heads are, None if all are here.
    """

    queries: Float[Tensor, "B Hq R D"]
    keys: Float[Tensor, "B H T D"]
    values: Float[Tensor, "B H T Dv"]
    kinds: _Kinds
    scaling: float
    layer: int
    rows: Int[Tensor, "B R"] = None  # type: ignore[assignment]  # filled in below
    rotation: Rotation | None = None
    layers: int | None = None
    group: HeadGroup | None = None

    def __post_init__(self) -> None:
        kinds = TokenKinds.of(self.kinds)
        object.__setattr__(self, "kinds", kinds)
        (B, Hq, R, D), (_, H, T, _) = self.queries.shape, self.keys.shape
        if (
            self.keys.shape[0] != B
            or self.keys.shape[-1] != D
            or Hq % H
            or self.values.shape[:3] != self.keys.shape[:3]
            or kinds.kind.shape != (B, T)
        ):
            raise InputError(
                f"queries {tuple(self.queries.shape)}, keys {tuple(self.keys.shape)}, values "
                f"{tuple(self.values.shape)} and kinds {tuple(kinds.kind.shape)} do not fit; give "
                "[B, Hq, R, D], [B, H, T, D] with Hq a multiple of H, [B, H, T, Dv], and [B, T]"
            )
        if self.rows is None:
            rows = torch.arange(T - R, T, device=self.keys.device).expand(B, R)
            object.__setattr__(self, "rows", torch.where(kinds.valid[:, T - R :], rows, -1))
        elif self.rows.shape != (B, R):
            raise InputError(f"rows are {tuple(self.rows.shape)}; give [B, R], {(B, R)} here")

    @property
    def groups(self) -> int:
        """Return how many query heads share a key-value head."""
        return self.queries.shape[1] // self.keys.shape[1]


@dataclass(frozen=True, eq=False)
class Quota:
    """A share of every budget that other scores fill, before the ranking's own fill the rest."""

    scores: Float[Tensor, "B H T"]
    share: float


@dataclass(frozen=True, eq=False)
class Ranking:
    """How one layer would choose: scores, the tier of every position, and the layer's statistics.

    `tiers`: -1 pad (never kept), 0 goes first, 1 goes last, 2 stays on top of the budget, 3 stays
    inside the budget (pinned; where a budget has no room for all of them, the newest). `mass` is
    what head budgets are shared by, if not the scores. `state` is what decode-time eviction goes on
    from: sums over the rows so far, per position.
    """

    scores: Float[Tensor, "B H T"]
    tiers: Int[Tensor, "B T"] | Int[Tensor, "B H T"]
    layer: int
    stats: Mapping[str, Tensor] = field(default_factory=dict)  # each [B]
    ties: Int[Tensor, "B T"] | None = None  # of equal scores the lower number stays; None: position
    quota: Quota | None = None
    mass: Float[Tensor, "B H T"] | None = None
    state: Mapping[str, Tensor] = field(default_factory=dict)  # each [B, H, T]
    group: HeadGroup | None = None  # where the layer's other heads are

    @property
    def candidates(self) -> Bool[Tensor, "B T"] | Bool[Tensor, "B H T"]:
        """Return the positions that may go."""
        return (self.tiers == GOES_FIRST) | (self.tiers == GOES_LAST)

    @property
    def pinned(self) -> Bool[Tensor, "B T"] | Bool[Tensor, "B H T"]:
        """Return the positions that stay and take their place out of the budget."""
        return self.tiers == PINNED


@dataclass(frozen=True, eq=False)
class Stored:
    """What is looked at in one layer while decoding: its slots, and the queries since last time.

    `rows` holds the queries' logical positions (-1: none), `positions` those of the slots (-1 is
    empty or a pad), `kinds` covers all logical positions so far. `state` belongs to the slots; new
    ones have zeros. `planned` is how many tokens the prompt kept, `room` how many may be stored.
    """

    queries: Float[Tensor, "B Hq R D"]
    rows: Int[Tensor, "B R"]
    keys: Float[Tensor, "B H L D"]
    values: Float[Tensor, "B H L Dv"]
    positions: Int[Tensor, "B H L"]
    kinds: TokenKinds
    scaling: float
    layer: int
    state: Mapping[str, Tensor]  # each [B, H, L]
    planned: Int[Tensor, "B H"]
    room: Int[Tensor, "B H"]
    group: HeadGroup | None = None

    @property
    def groups(self) -> int:
        """Return how many query heads share a key-value head."""
        return self.queries.shape[1] // self.keys.shape[1]


@dataclass(frozen=True, eq=False)
class Plan:
    """Which positions every layer, row and head keeps, and the numbers behind it."""

    keep: tuple[Bool[Tensor, "B H T"], ...]
    explain: tuple[
        Mapping[str, Tensor], ...
    ]  # per layer: statistics and budget, each [B] or [B, H]
    scores: tuple[Float[Tensor, "B H T"], ...] = ()

    def positions(self, layer: int, row: int, head: int) -> Int[Tensor, " K"]:
        """Return the kept positions, ascending."""
        return self.keep[layer][row, head].nonzero().flatten()


@dataclass(frozen=True, eq=False)
class LayerKV:
    """The kept (and merged) keys and values of one layer, right-aligned; -1 marks empty slots."""

    packed_keys: Float[Tensor, "B H L D"]
    packed_values: Float[Tensor, "B H L Dv"]
    packed_positions: Int[Tensor, "B H L"]

    def keys(self, row: int, head: int) -> Float[Tensor, "K D"]:
        """Return the keys that one head of one row keeps, by ascending position."""
        return self.packed_keys[row, head, self.packed_positions[row, head] >= 0]

    def values(self, row: int, head: int) -> Float[Tensor, "K Dv"]:
        """Return the values that one head of one row keeps, by ascending position."""
        return self.packed_values[row, head, self.packed_positions[row, head] >= 0]

    def positions(self, row: int, head: int) -> Int[Tensor, " K"]:
        """Return the kept positions, ascending."""
        positions = self.packed_positions[row, head]
        return positions[positions >= 0]

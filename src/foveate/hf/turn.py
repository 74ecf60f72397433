"""One turn of a conversation: which prompt tokens came, what they are, whose queries we want."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from foveate.cache.account import Account
from foveate.group import HeadGroup
from foveate.hf.following import Following
from foveate.hf.scene import Scene
from foveate.method import Method
from foveate.types import PAD, TEXT, Grid, Int, Observation, Ranking, Rotation, TokenKinds

if TYPE_CHECKING:
    from foveate.hf.stream import Stream

Grids = Callable[[TokenKinds], tuple[tuple[Grid, ...], ...]]


@dataclass
class Turn:
    """What has been seen of a prompt, shared by the cache and its layers.

    `start` is where the turn begins, `expected` the length at which its prompt is complete (None:
    after every prompt pass), `stop` the position up to which this pass completes it and has it
    ranked (None: it does not), `kinds` covers all positions up to there.
    """

    method: Method
    kinds: TokenKinds | None = None
    start: int = 0
    expected: int | None = None
    stop: int | None = None
    number: int = 0  # turns that were compressed
    open: bool = False  # some of this turn's prompt has been read
    rotation: Rotation | None = None
    layers: int | None = None  # of the model
    group: HeadGroup | None = None  # where the model's other heads are
    running: bool = False
    stepping: bool = False  # a compiled step runs: the host counts outside of it
    prompt: bool = False
    clean: bool = True  # no stored slot is padding, and the caller's mask speaks of padding only
    plain_mask: bool = True
    rows: Int[Tensor, "B R"] | None = None  # logical positions wanted in this pass
    picks: Int[Tensor, "B R"] | None = None  # the same, from the pass's first token; None: all
    captured: dict[int, list[tuple[Tensor, Tensor]]] = field(default_factory=dict)
    scaling: dict[int, float] = field(default_factory=dict)
    rankings: dict[int, Ranking] = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)  # ranking, per layer
    account: Account = field(default_factory=Account)
    stream: Stream | None = None  # trims layers in this pass
    scene: Scene = field(default_factory=Scene)

    def __post_init__(self) -> None:
        self.following = Following(self.method, self.group)

    def add(
        self, kinds: TokenKinds, seen: int, mask: Any = None, grids: Grids | None = None
    ) -> None:
        """Note the kinds of the tokens that start at position `seen`, and choose query rows.

        `grids` says what is known of the images, once all tokens of the prompt are here.
        """
        known = 0 if self.kinds is None else self.kinds.kind.shape[1]
        if self.kinds is None:
            self.kinds = kinds
        else:
            gap = torch.full((len(kinds.kind), seen - known), TEXT, device=kinds.kind.device)
            if isinstance(mask, Tensor) and mask.shape[1:] == (seen + kinds.kind.shape[1],):
                # rows that had finished earlier are padded by the caller
                gap = gap.masked_fill(mask[:, known:seen].to(gap.device) == 0, PAD)
                self.clean = self.clean and not self.hides(mask[:, :seen])
            cut = self.start < seen == known
            self.kinds = self.kinds.followed_by(TokenKinds.of(gap)).followed_by(kinds, cut)
            if cut and not self.number and grids is not None:  # of images that chunks cut
                self.kinds = replace(self.kinds, grids=grids(self.kinds) or self.kinds.grids)
        self.open = True
        self.choose(seen, kinds.kind.shape[1])

    def choose(self, seen: int, tokens: int) -> None:
        """Choose which query rows of this pass the method's score will read, and when it will."""
        self.rows = self.picks = self.stop = None
        assert self.kinds is not None
        if self.following.active:  # what is stored is ranked later, all of it
            return
        stop = seen + tokens if self.expected is None else min(seen + tokens, self.expected)
        kinds = self.kinds.columns(self.start, stop)
        if stop <= seen or not self.is_compressed(kinds):
            return
        if self.expected is None or stop == self.expected:
            self.stop = stop
        wanted = self.method.score.rows(kinds)
        if wanted is None:
            return
        if self.expected is not None and stop < self.expected:
            # more is to come: the text after the last image may turn out to lie between images
            early = self.method.score.rows(_without_trailing_text(kinds))
            wanted = wanted if early is None else wanted | early
        wanted = wanted[:, seen - self.start :]
        rows = int(wanted.sum(-1).max())
        if rows == 0:
            return
        if rows == wanted.shape[1]:  # all of some row: nothing is picked
            place = torch.arange(seen, seen + rows, device=wanted.device)
            self.rows = torch.where(wanted, place, -1)
            return
        # stable: wanted positions first, in order; a row with fewer is filled up with -1
        order = (~wanted).long().argsort(dim=-1, stable=True)[:, :rows]
        here = wanted.gather(-1, order)
        self.picks = order
        self.rows = torch.where(here, order + seen, -1)

    def is_compressed(self, kinds: TokenKinds) -> bool:
        """Return whether a turn with these tokens is going to be compressed."""
        again = self.method.when.recompress and bool(kinds.visual.any())
        return not self.method.keeps_everything and (self.number == 0 or again)

    def capture(self, layer: int, query: Tensor) -> None:
        """Keep the wanted query rows of one layer."""
        if self.rows is None:
            return
        if self.picks is not None:
            picks = self.picks.to(query.device)
            index = picks[:, None, :, None].expand(-1, query.shape[1], -1, query.shape[-1])
            query = query.gather(2, index)
        elif query.shape[2] > self.rows.shape[1]:  # drafts that came behind the prompt
            query = query[:, :, : self.rows.shape[1]]
        self.captured.setdefault(layer, []).append((query, self.rows.to(query.device)))

    @torch.no_grad()
    def rank(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Rank one layer's turn as soon as its queries are there, and let go of them."""
        began = time.perf_counter()
        self.rankings[layer] = self.method.rank(self.observe(layer, keys, values))
        self.captured.pop(layer, None)
        if self.stream is not None:
            self.stream.ranked(self.rankings[layer])
        self.seconds[layer] = time.perf_counter() - began

    def observe(
        self, layer: int, keys: Tensor, values: Tensor, queries: bool = True
    ) -> Observation:
        """Return what the method may look at: the turn's tokens, counted from its start."""
        assert self.kinds is not None
        kinds = self.kinds.columns(self.start, self.start + keys.shape[2]).to(keys.device)
        parts = self.captured.get(layer, []) if queries else []
        if parts:
            query = torch.cat([part for part, _ in parts], 2) if len(parts) > 1 else parts[0][0]
            rows = torch.cat([row for _, row in parts], -1)
            rows = torch.where(rows >= 0, rows - self.start, -1)
        else:
            query = keys[:, :, :0]
            rows = torch.zeros(len(keys), 0, dtype=torch.long, device=keys.device)
        wanted = self.method.score.rows(kinds) if parts else None
        if wanted is not None:
            asked = wanted.to(rows.device).gather(-1, rows.clamp(min=0)) & (rows >= 0)
            rows = torch.where(asked, rows, -1)
        scaling, known = self.scaling[layer], (self.rotation, self.layers, self.group)
        return Observation(query, keys, values, kinds, scaling, layer, rows, *known)

    def begin(self, seen: int) -> None:
        """Begin a turn at position `seen`; what came before stays as it is."""
        self.start, self.open = seen, True

    def close(self, stop: int, packed: bool) -> None:
        """End the turn at logical position `stop`."""
        assert self.kinds is not None
        turn = self.kinds.kind[:, self.start : stop]
        if not packed and bool((turn == PAD).any()):
            self.clean = False
        self.captured.clear()
        self.rankings.clear()
        self.rows = self.picks = self.stop = None
        self.open = False

    def take(self, rows: Tensor) -> None:
        """Keep the named rows of the batch."""
        if self.kinds is not None:
            self.scene = self.scene.take(rows.tolist(), len(self.kinds.kind))
            self.kinds = self.kinds.rows(rows.to(self.kinds.kind.device))
        self.following.take(rows)

    def crop(self, length: int) -> None:
        """Forget the positions from `length` on."""
        if self.kinds is not None and self.kinds.kind.shape[1] > length:
            self.kinds = self.kinds.columns(0, length)
            self.scene = self.scene.crop(length)
        self.start = min(self.start, length)
        self.open = self.open and length > self.start
        self.following.crop(length)

    def reset(self) -> None:
        """Forget everything."""
        self.kinds, self.start, self.number, self.clean, self.open = None, 0, 0, True, False
        self.rows = self.picks = self.stop = self.stream = None
        self.running, self.scene = False, Scene()
        for record in (self.captured, self.scaling, self.rankings, self.seconds):
            record.clear()
        self.following.reset()

    def note_mask(self, mask: Any) -> None:
        """Remember whether the caller's mask says more than where a prompt's padding is.

        `generate` never hides more between prompts; a loop over `forward` may at every pass.
        """
        self.plain_mask = mask is None or (isinstance(mask, Tensor) and mask.ndim == 2)
        if self.expected is None and isinstance(mask, Tensor) and mask.ndim == 2:
            self.clean = self.clean and not self.hides(mask)

    def hides(self, mask: Tensor) -> bool:
        """Return whether a mask [B, T] hides more than the padding of the prompts."""
        hidden = mask == 0
        if self.kinds is not None:
            later = mask.shape[1] - self.kinds.kind.shape[1]
            valid = torch.nn.functional.pad(self.kinds.valid, (0, later), value=True)
            hidden = hidden & valid.to(mask.device)
        return bool(hidden.any())


def _without_trailing_text(kinds: TokenKinds) -> TokenKinds:
    """Return the kinds as if nothing followed the last visual token."""
    later = kinds.visual.flip(-1).cumsum(-1).flip(-1) == 0
    return TokenKinds(kinds.kind.masked_fill(later, PAD), kinds.span, kinds.special, kinds.grids)

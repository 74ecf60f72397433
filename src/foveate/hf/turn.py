"""One turn of a conversation: which prompt tokens came, what they are, whose queries we want."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from foveate.method import Method
from foveate.types import PAD, TEXT, Int, Observation, TokenKinds


@dataclass
class Turn:
    """What has been seen of a prompt, shared by the cache and its layers.

    `start` is where the part begins that was not compressed yet, `expected` the length at which the
    prompt is complete (None: after every prompt pass), `kinds` covers all positions up to there.
    """

    method: Method
    kinds: TokenKinds | None = None
    start: int = 0
    expected: int | None = None
    running: bool = False
    prompt: bool = False
    clean: bool = True  # no stored slot is padding, and the caller's mask speaks of padding only
    plain_mask: bool = True
    rows: Int[Tensor, "B R"] | None = None  # logical positions wanted in this pass
    picks: Int[Tensor, "B R"] | None = None  # the same, counted from the pass's first token
    captured: dict[int, list[tuple[Tensor, Tensor]]] = field(default_factory=dict)
    scaling: dict[int, float] = field(default_factory=dict)

    def add(self, kinds: TokenKinds, seen: int, mask: Any = None) -> None:
        """Note the kinds of the tokens that start at position `seen`, and choose query rows."""
        known = 0 if self.kinds is None else self.kinds.kind.shape[1]
        if self.kinds is None:
            self.kinds = kinds
        else:
            gap = torch.full((len(kinds.kind), seen - known), TEXT, device=kinds.kind.device)
            if isinstance(mask, Tensor) and mask.shape[1:] == (seen + kinds.kind.shape[1],):
                # rows that had finished earlier are padded by the caller
                gap = gap.masked_fill(mask[:, known:seen].to(gap.device) == 0, PAD)
            self.kinds = self.kinds.followed_by(TokenKinds.of(gap)).followed_by(kinds)
        self.choose(seen, kinds.kind.shape[1])

    def choose(self, seen: int, tokens: int) -> None:
        """Choose which query rows of this pass the method's score will read."""
        self.rows = self.picks = None
        assert self.kinds is not None
        stop = seen + tokens if self.expected is None else min(seen + tokens, self.expected)
        if stop <= seen:
            return
        if self.method.keeps_everything:
            return
        kinds = self.kinds.columns(self.start, stop)
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
        # stable: wanted positions first, in order; a row with fewer is filled up with -1
        order = (~wanted).long().argsort(dim=-1, stable=True)[:, :rows]
        here = wanted.gather(-1, order)
        self.picks = order
        self.rows = torch.where(here, order + seen, -1)

    def capture(self, layer: int, query: Tensor, scaling: float) -> None:
        """Keep the wanted query rows of one layer."""
        self.scaling[layer] = scaling
        if self.picks is None or self.rows is None:
            return
        picks = self.picks.to(query.device)
        index = picks[:, None, :, None].expand(-1, query.shape[1], -1, query.shape[-1])
        self.captured.setdefault(layer, []).append(
            (query.gather(2, index), self.rows.to(query.device))
        )

    def observe(
        self, layer: int, keys: Tensor, values: Tensor, queries: bool = True
    ) -> Observation:
        """Return what the method may look at: the turn's tokens, counted from its start."""
        assert self.kinds is not None
        kinds = self.kinds.columns(self.start, self.start + keys.shape[2]).to(keys.device)
        parts = self.captured.get(layer, []) if queries else []
        if not parts:
            heads = keys.shape[1]
            empty = keys.new_zeros(len(keys), heads, 0, keys.shape[-1])
            rows = torch.zeros(len(keys), 0, dtype=torch.long, device=keys.device)
            return Observation(empty, keys, values, kinds, self.scaling[layer], layer, rows)
        query = torch.cat([part for part, _ in parts], 2)
        rows = torch.cat([row for _, row in parts], -1) - self.start
        wanted = self.method.score.rows(kinds)
        if wanted is not None and rows.numel():
            asked = wanted.to(rows.device).gather(-1, rows.clamp(min=0)) & (rows >= 0)
            rows = torch.where(asked, rows, -1)
        return Observation(query, keys, values, kinds, self.scaling[layer], layer, rows)

    def close(self, stop: int, packed: bool) -> None:
        """End the turn at logical position `stop`."""
        assert self.kinds is not None
        turn = self.kinds.kind[:, self.start : stop]
        if not packed and bool((turn == PAD).any()):
            self.clean = False
        self.captured.clear()
        self.rows = self.picks = None

    def take(self, rows: Tensor) -> None:
        """Keep the named rows of the batch."""
        if self.kinds is not None:
            self.kinds = self.kinds.rows(rows.to(self.kinds.kind.device))

    def crop(self, length: int) -> None:
        """Forget the positions from `length` on."""
        if self.kinds is not None and self.kinds.kind.shape[1] > length:
            self.kinds = self.kinds.columns(0, length)
        self.start = min(self.start, length)

    def reset(self) -> None:
        """Forget everything."""
        self.kinds, self.start, self.clean = None, 0, True
        self.rows = self.picks = None
        self.captured.clear()
        self.scaling.clear()

    def note_mask(self, mask: Any, tokens: int) -> None:
        """Remember whether the caller's mask says more than where a prompt's padding is.

        `generate` never hides what it generated; a loop over `forward` may.
        """
        self.plain_mask = mask is None or (isinstance(mask, Tensor) and mask.ndim == 2)
        if self.expected is None and isinstance(mask, Tensor) and mask.ndim == 2:
            self.clean = self.clean and bool(mask[:, -tokens:].all())


def _without_trailing_text(kinds: TokenKinds) -> TokenKinds:
    """Return the kinds as if nothing followed the last visual token."""
    later = kinds.visual.flip(-1).cumsum(-1).flip(-1) == 0
    return TokenKinds(kinds.kind.masked_fill(later, PAD), kinds.span, kinds.special, kinds.grids)

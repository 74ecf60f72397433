"""Eviction while decoding: the queries since the last look, and the look itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from foveate.method import Method, select
from foveate.types import PAD, TEXT, Int, Stored, TokenKinds

if TYPE_CHECKING:
    from foveate.hf.layer import CompressedLayer


class Following:
    """What decode-time eviction remembers: queries since the last look, and how long prompts were.

    It begins when the first prompt has been compressed. Every later token is followed, of a later
    turn too: all that is stored competes for the room.
    """

    def __init__(self, method: Method) -> None:
        self.method = method
        self.first: Tensor | None = None  # [B], tokens of the first prompt
        self.prompts: Tensor | None = None  # [B], tokens of all prompts
        self.fresh = 0  # tokens since the last look
        self.valid: Tensor | None = None  # [B, q], tokens of this pass that are no pads
        self.seen = 0
        self.captured: dict[int, list[tuple[Tensor, Tensor]]] = {}

    @property
    def active(self) -> bool:
        """Return whether the first prompt is behind us."""
        return self.first is not None

    def start(self, kinds: TokenKinds) -> None:
        """Begin behind a prompt of these kinds."""
        if self.method.when.follow is not None and not self.method.keeps_everything:
            self.first = self.prompts = kinds.valid.sum(-1)

    def open(self, seen: int, tokens: int, prompt: TokenKinds | None) -> None:
        """Prepare for a pass over `tokens` tokens behind `seen`, a prompt's if its kinds came."""
        assert self.prompts is not None
        self.seen, self.valid = seen, None
        self.fresh += tokens
        if prompt is not None:
            self.valid = prompt.valid
            self.prompts = self.prompts + prompt.valid.sum(-1).to(self.prompts.device)

    def capture(self, layer: int, query: Tensor) -> None:
        """Keep all query rows of one layer."""
        rows = torch.arange(self.seen, self.seen + query.shape[2], device=query.device)
        rows = rows.expand(len(query), -1)
        if self.valid is not None:
            rows = rows.masked_fill(~self.valid.to(query.device), -1)
        self.captured.setdefault(layer, []).append((query, rows))

    def is_due(self, prompt: bool) -> bool:
        """Return whether it is time for a look: after a prompt, and after `every` tokens."""
        return prompt or self.fresh >= self.method.when.every

    def look(
        self, layers: Sequence[CompressedLayer], kinds: TokenKinds, scaling: Mapping[int, float]
    ) -> None:
        """Rank what every layer stores, and evict down to the room."""
        for layer in layers:
            parts = self.captured.pop(layer.index, [])
            if parts and layer.store.keys is not None and layer.store.values is not None:
                stored = self.stored(layer, parts, kinds, scaling[layer.index])
                follow, store = self.method.when.follow, layer.store
                assert follow is not None
                ranking = follow(stored, self.tiers(stored))
                keep = select(ranking, stored.room).expand_as(stored.positions)
                store.retain(keep & (stored.positions >= 0), ranking.state)
        self.captured.clear()
        self.fresh = 0

    def stored(
        self,
        layer: CompressedLayer,
        parts: Sequence[tuple[Tensor, Tensor]],
        kinds: TokenKinds,
        scaling: float,
    ) -> Stored:
        """Return what there is to look at in one layer."""
        store = layer.store
        assert store.keys is not None and store.values is not None and store.planned is not None
        B, H, L = store.keys.shape[:3]
        kinds = later_text(kinds, store.seen).to(store.keys.device)
        return Stored(
            torch.cat([query for query, _ in parts], 2),
            torch.cat([rows for _, rows in parts], -1),
            store.keys,
            store.values,
            store.logical().expand(B, H, L),
            kinds,
            scaling,
            layer.index,
            store.numbers(),
            store.planned,
            self.room(store.planned, kinds.valid.sum(-1)),
        )

    def tiers(self, stored: Stored) -> Int[Tensor, "B H L"]:
        """Return the tier of every slot."""
        assert self.prompts is not None
        tiers = self.method.scope.tiers(stored.kinds, self.prompts.to(stored.keys.device))
        wide = tiers[:, None].expand(-1, stored.positions.shape[1], -1)
        tiers = wide.gather(-1, stored.positions.clamp(min=0))
        return tiers.masked_fill(stored.positions < 0, PAD)

    def room(self, planned: Int[Tensor, "B H"], seen: Int[Tensor, " B"]) -> Int[Tensor, "B H"]:
        """Return how many tokens every head may store now."""
        assert self.first is not None and self.prompts is not None
        first = self.first.to(planned.device)[:, None].clamp(min=1)
        keep = self.method.budget.keep
        if self.method.when.grows:
            return (planned * seen[:, None] / first - 1e-6).ceil().long()
        if isinstance(keep, int):
            return planned + (keep - first).clamp(min=0)
        return (planned * self.prompts.to(planned.device)[:, None] / first + 1e-6).floor().long()

    def take(self, rows: Tensor) -> None:
        """Keep the named rows of the batch."""
        if self.first is None or self.prompts is None:
            return
        rows = rows.to(self.first.device)
        self.first, self.prompts = self.first[rows], self.prompts[rows]
        self.valid = None if self.valid is None else self.valid[rows.to(self.valid.device)]
        self.captured = {
            layer: [(q[rows.to(q.device)], r[rows.to(r.device)]) for q, r in parts]
            for layer, parts in self.captured.items()
        }

    def crop(self, length: int) -> None:
        """Forget the queries from position `length` on."""
        self.captured = {
            layer: [(query, rows.masked_fill(rows >= length, -1)) for query, rows in parts]
            for layer, parts in self.captured.items()
        }

    def reset(self) -> None:
        """Forget everything."""
        self.__init__(self.method)  # type: ignore[misc]


def later_text(kinds: TokenKinds, seen: int) -> TokenKinds:
    """Return the kinds up to `seen` tokens, those behind the last prompt being text."""
    tokens = seen - kinds.kind.shape[1]
    if tokens <= 0:
        return kinds
    text = torch.full((len(kinds.kind), tokens), TEXT, device=kinds.kind.device)
    return kinds.followed_by(TokenKinds.of(text))

"""Eviction while decoding: the queries since the last look, and the look itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from foveate.errors import MethodError
from foveate.group import HeadGroup
from foveate.line import select
from foveate.method import Method
from foveate.types import PAD, TEXT, Int, Ranking, Stored, TokenKinds

if TYPE_CHECKING:
    from foveate.hf.layer import CompressedLayer


class Following:
    """What decode-time eviction remembers: queries since the last look, and how long prompts were.

    It begins when the first prompt has been compressed. Every later token is followed, of a later
    turn too: all that is stored competes for the room.
    """

    def __init__(self, method: Method, group: HeadGroup | None = None) -> None:
        self.method, self.group = method, group
        self.even = False  # it is known that heads elsewhere may be ranked with ours
        self.first: Tensor | None = None  # [B], tokens of the first prompt
        self.later: list[tuple[int, Tensor]] = []  # where later prompts began, what is no pad [B,q]
        self.seen = self.looked = 0  # tokens before this pass, and at the last look
        self.rows: Tensor | None = None  # [B, q], positions of this pass's tokens, -1 for pads
        self.captured: dict[int, list[tuple[Tensor, Tensor]]] = {}

    @property
    def active(self) -> bool:
        """Return whether the first prompt is behind us."""
        return self.first is not None

    @property
    def prompts(self) -> Int[Tensor, " B"]:
        """Return how many tokens all prompts had."""
        assert self.first is not None
        total = self.first
        for _, valid in self.later:
            total = total + valid.sum(-1).to(total.device)
        return total

    def start(self, kinds: TokenKinds) -> None:
        """Begin behind a prompt of these kinds."""
        if self.method.when.follow is not None and not self.method.keeps_everything:
            self.first, self.looked = kinds.valid.sum(-1), kinds.kind.shape[1]

    def open(self, seen: int, tokens: int, prompt: TokenKinds | None) -> None:
        """Prepare for a pass over `tokens` tokens behind `seen`, a prompt's if its kinds came."""
        assert self.first is not None
        self.seen = seen
        rows = torch.arange(seen, seen + tokens, device=self.first.device)
        self.rows = rows.expand(len(self.first), -1)
        if prompt is not None:
            valid = prompt.valid.to(rows.device)
            self.later.append((seen, valid))
            self.rows = self.rows.masked_fill(~valid, -1)

    def capture(self, layer: int, query: Tensor) -> None:
        """Keep the query rows of one layer that the method reads."""
        reads = self.reads()
        if reads == "none":
            return
        assert self.rows is not None
        rows = self.rows = self.rows.to(query.device)
        parts = self.captured.setdefault(layer, [])
        parts.append((query.detach(), rows))
        if reads == "newest" and (len(parts) > 1 or query.shape[2] > 1):
            parts[:] = [newest(parts)]

    def is_due(self, prompt: bool, seen: int) -> bool:
        """Return whether it is time for a look: after a prompt, and after `every` tokens."""
        return prompt or seen - self.looked >= self.method.when.every

    def look(
        self, layers: Sequence[CompressedLayer], kinds: TokenKinds, scaling: Mapping[int, float]
    ) -> None:
        """Rank what every layer stores, and evict down to the room."""
        layers = [layer for layer in layers if layer.store.planned is not None]
        if not layers:
            return
        if self.group is not None and not self.even:
            check_even(self.method, [layer.store.planned for layer in layers], self.group)
            self.even = True
        seen = layers[0].store.seen
        views = self.views(layers, later_text(kinds, seen))
        chosen = [self.choose(layer, views, scaling[layer.index]) for layer in layers]
        home = chosen[0][1].device
        summaries = torch.stack(
            [x.store.summary(keep).to(home) for x, (_, keep) in zip(layers, chosen, strict=True)]
        ).tolist()  # the only wait
        for layer, (ranking, keep), summary in zip(layers, chosen, summaries, strict=True):
            layer.retain(keep, ranking.state, summary)
        self.captured.clear()
        self.looked = seen

    def views(
        self, layers: Sequence[CompressedLayer], kinds: TokenKinds
    ) -> dict[torch.device, tuple[TokenKinds, Tensor, Tensor]]:
        """Return kinds, tiers [B, T] and tokens of all prompts [B], on every device there is."""
        tiers = self.method.scope.tiers(kinds, self.prompts.to(kinds.kind.device))
        devices = {layer.store.device for layer in layers if layer.store.device is not None}
        return {x: (kinds.to(x), tiers.to(x), self.prompts.to(x)) for x in devices}

    def choose(
        self,
        layer: CompressedLayer,
        views: Mapping[torch.device, tuple[TokenKinds, Tensor, Tensor]],
        scaling: float,
    ) -> tuple[Ranking, Tensor]:
        """Return how one layer ranks its slots, and which it keeps [B, H, L]."""
        store, follow = layer.store, self.method.when.follow
        assert store.planned is not None and follow is not None
        keys, values = store.slots()
        kinds, tiers, prompts = views[keys.device]
        B, H, L = keys.shape[:3]
        logical = store.logical()
        at = tiers[:, None].expand(B, logical.shape[1], -1).gather(-1, logical.clamp(min=0))
        at = at.masked_fill(logical < 0, PAD)
        queries, rows = joined(self.captured.get(layer.index), keys)
        stored = Stored(
            queries,
            rows,
            keys,
            values,
            logical.masked_fill(at == PAD, -1).expand(B, H, L),
            kinds,
            scaling,
            layer.index,
            store.numbers(),
            store.planned,
            self.room(store.planned, prompts, kinds.valid.sum(-1)),
            self.group,
        )
        ranking = follow(stored, at.expand(B, H, L))
        return ranking, select(ranking, stored.room).expand(B, H, L)

    def room(
        self, planned: Int[Tensor, "B H"], prompts: Int[Tensor, " B"], seen: Int[Tensor, " B"]
    ) -> Int[Tensor, "B H"]:
        """Return how many tokens every head may store now; in whole numbers, for floats round."""
        assert self.first is not None
        first = self.first.to(planned.device)[:, None].clamp(min=1)
        keep = self.method.budget.keep
        if self.method.when.grows:
            return -(-planned * seen[:, None]).div(first, rounding_mode="floor")
        if isinstance(keep, float):
            return (planned * prompts[:, None]).div(first, rounding_mode="floor")
        return planned + (keep - first).clamp(min=0)

    def reads(self) -> str:
        """Return which query rows the method reads."""
        follow = self.method.when.follow
        return "none" if follow is None else follow.reads

    def take(self, rows: Tensor) -> None:
        """Keep the named rows of the batch."""

        def taken(tensor: Tensor) -> Tensor:
            return tensor[rows.to(tensor.device)]

        if self.first is None:
            return
        self.first = taken(self.first)
        self.later = [(start, taken(valid)) for start, valid in self.later]
        self.rows = None if self.rows is None else taken(self.rows)
        self.captured = {
            layer: [(taken(query), taken(place)) for query, place in parts]
            for layer, parts in self.captured.items()
        }

    def crop(self, length: int) -> None:
        """Forget the queries and the prompts from position `length` on."""
        self.looked = min(self.looked, length)
        self.later = [
            (start, valid[:, : length - start]) for start, valid in self.later if start < length
        ]
        self.captured = {
            layer: [(query, rows.masked_fill(rows >= length, -1)) for query, rows in parts]
            for layer, parts in self.captured.items()
        }

    def reset(self) -> None:
        """Forget everything."""
        self.__init__(self.method, self.group)  # type: ignore[misc]


def check_even(method: Method, planned: Sequence[Tensor | None], group: HeadGroup) -> None:
    """Raise `MethodError` for a rule about all heads together where they keep different numbers.

    Their slots could not be told apart by what other processes send.
    """
    if getattr(method.when.follow, "heads", None) != "shared":
        return
    counts = [part for part in planned if part is not None]
    every = group.gather(torch.stack([part.to(counts[0].device) for part in counts]), 2)
    if not bool((every == every[..., :1]).all()):
        raise MethodError(
            "heads='shared' ranks what all heads store together, which several processes can do "
            "only where heads keep equally many tokens; use heads='per_kv_head', or a budget that "
            "is the same for all heads of a layer"
        )


def newest(parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Return the newest query of every row of the batch, [B, Hq, 1, D], and its position."""
    query = torch.cat([query for query, _ in parts], 2)
    rows = torch.cat([rows for _, rows in parts], -1)
    rows, at = rows.max(-1, keepdim=True)
    at = at[:, None, :, None].expand(-1, query.shape[1], 1, query.shape[-1])
    return query.gather(2, at), rows


def joined(parts: Sequence[tuple[Tensor, Tensor]] | None, keys: Tensor) -> tuple[Tensor, Tensor]:
    """Return queries [B, Hq, R, D] and their positions [B, R]; none where nothing is read."""
    if not parts:
        return keys[:, :, :0], torch.zeros(len(keys), 0, dtype=torch.long, device=keys.device)
    if len(parts) == 1:
        return parts[0]
    return torch.cat([query for query, _ in parts], 2), torch.cat([rows for _, rows in parts], -1)


def later_text(kinds: TokenKinds, seen: int) -> TokenKinds:
    """Return the kinds up to `seen` tokens, those behind the last prompt being text."""
    tokens = seen - kinds.kind.shape[1]
    if tokens <= 0:
        return kinds
    text = torch.full((len(kinds.kind), tokens), TEXT, device=kinds.kind.device)
    return kinds.followed_by(TokenKinds.of(text))

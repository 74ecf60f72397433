"""Many conversations in one cache, each with its own length: one token of each is decoded at once.

Every conversation reads its prompt alone, in a cache of its own, and then joins. All rows end at
one logical length, whatever they hold; where the model places a row's next token is said for each.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from foveate.cache.dense import Dense
from foveate.cache.joined import joined
from foveate.cache.ragged import Ragged
from foveate.cache.store import Store
from foveate.errors import CacheError
from foveate.hf.attach import Lease
from foveate.hf.cache import CompressedCache
from foveate.hf.support import has_grid_positions
from foveate.methods.baselines import full
from foveate.types import Float

__all__ = ["Rows", "lonely"]

LONGEST_TAIL = 128  # tokens behind the prefixes before they become part of them


class Rows(CompressedCache):
    """What several conversations hold, to decode with and nothing else."""

    def __init__(self, model: nn.Module | Lease) -> None:
        super().__init__(model, full(), storage="ragged")
        self.planes = (3,) if has_grid_positions(self.attachment.text_config) else ()
        self.lengths: list[int] = []  # tokens that every row has seen
        self.places: list[int] = []  # where the model is to place the next token of every row

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def nbytes(self) -> int:
        """Return the bytes that keys and values of all rows hold, whole storages counted."""
        return sum(layer.nbytes for layer in self.compressed_layers)

    def join(self, cache: CompressedCache, place: int) -> None:
        """Take over what another cache holds, as the last rows; that cache is empty then.

        `place` is the model's position of the next token, as it would be without any shift. Raises
        `CacheError` for a cache that `lonely` has a reason for, or one whose rows are padded.
        """
        reason = lonely(cache)
        if reason is not None or cache.turn.open or not (cache.turn.clean and cache.seen):
            raise CacheError(
                "only a cache that has read a prompt without padding can join others; this one "
                + (f"must decode alone: {reason}" if reason else "has not")
            )
        seen, length = cache.seen, max([*self.lengths, cache.seen])
        shift = [0] if cache.shift is None else cache.shift.tolist()
        try:
            for mine, other in zip(self.compressed_layers, cache.compressed_layers, strict=True):
                stores = [_ragged(x.store) for x in (mine, other) if x.store.device is not None]
                if stores:
                    mine.store = joined(stores, length)
                other.reset()  # one after the other: only one layer is there twice
        except BaseException:  # no memory for it: those that were there go on
            self.keep(range(len(self)))
            raise
        cache.reset()
        self.lengths += [seen] * len(shift)
        self.places += [place - by for by in shift]

    def keep(self, rows: Sequence[int]) -> None:
        """Let all other rows go, and their bytes."""
        self.lengths = [self.lengths[row] for row in rows]
        self.places = [self.places[row] for row in rows]
        if not rows:
            self.reset()
            return
        index = torch.tensor(list(rows))
        for layer in self.compressed_layers:
            if isinstance(layer.store, Ragged):
                layer.store.take(index)
        self.fold()

    def fold(self) -> None:
        """Make the tails part of the prefixes, and let all rows end where the longest does."""
        length = max(self.lengths)
        for layer in self.compressed_layers:
            if isinstance(layer.store, Ragged):
                layer.store = joined([layer.store], length)

    @torch.no_grad()
    def step(self, model: nn.Module, tokens: Sequence[int]) -> Float[Tensor, "B V"]:
        """Run one token of every row through the model, and return what it says comes next.

        What a pass that raises has stored is forgotten, so that it can be tried again.
        """
        stores = [x.store for x in self.compressed_layers if isinstance(x.store, Ragged)]
        if stores[0].seen - stores[0].base >= LONGEST_TAIL:
            self.fold()
        device = stores[0].device
        places = torch.tensor(self.places, device=device)[:, None]
        try:
            output = model(
                input_ids=torch.tensor(tokens, device=device)[:, None],
                position_ids=places.expand(*self.planes, -1, -1),
                past_key_values=self,
                use_cache=True,
            )
        except BaseException:  # an interrupt, too, of which no hook hears
            self.close()
            self.fail()
            raise
        self.lengths = [length + 1 for length in self.lengths]
        self.places = [place + 1 for place in self.places]
        logits: Tensor = output.logits
        return logits[:, -1]

    def fail(self) -> None:
        """Forget what a pass that raised has stored."""
        self.turn.running = False
        for layer in self.compressed_layers:
            layer.store.crop(max(self.lengths))


def lonely(cache: CompressedCache) -> str | None:
    """Return why a cache cannot be decoded together with others, or None where it can."""
    native = len(cache.layers) - len(cache.compressed_layers)
    if native:
        return (
            f"{native} of {len(cache.layers)} layers are stored as the model has them, "
            "with windows or states of their own"
        )
    if cache.method.when.follow is not None and not cache.method.keeps_everything:
        return "its method evicts while decoding"
    if cache.form.quantized is not None or cache.form.storage == "static":
        return "its storage is quantised or compiled"
    return None


def _ragged(store: Store) -> Ragged:
    """Return what a layer holds as ragged storage."""
    if isinstance(store, Ragged):
        return store
    assert isinstance(store, Dense)
    return Ragged.of(store)

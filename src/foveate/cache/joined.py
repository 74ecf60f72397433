"""Several ragged storages as one: their rows behind one another, each with what it keeps."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from foveate.cache.ragged import Ragged
from foveate.cache.segments import Segments
from foveate.errors import CacheError

__all__ = ["joined"]


def joined(stores: Sequence[Ragged], length: int) -> Ragged:
    """Return one storage with the rows of all, which have seen `length` tokens from now on.

    Rows keep what they hold, to the entry, and every tail becomes prefix. Positions are moved so
    that all rows end at `length`, the least that their longest allows. Raises `CacheError` for what
    is encoded, or evicted from while decoding: both go on from numbers that rows do not share.
    """
    for store in stores:
        if store.codec is not None or store.state or store.released:
            raise CacheError(
                f"{store.name} storage came with numbers of its own, or in the middle of a prompt; "
                "join what decodes from plain keys and values"
            )
    prefix = Segments.stacked([store.whole().moved(length - store.seen) for store in stores])
    keys, values = (
        torch.cat([tail[:, :, :0] for tail in tails])
        for tails in ([store.keys for store in stores], [store.values for store in stores])
    )
    made = Ragged(prefix, keys, values)
    made.base = made.start = made.seen = length
    return made

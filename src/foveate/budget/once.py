"""Numbers of a ranking that are asked for after every layer, and computed once."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import wraps
from weakref import WeakKeyDictionary

from torch import Tensor

from foveate.types import Ranking

__all__ = ["once"]


def once(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return the function, which remembers its results for as long as the ranking lives.

    Its first argument is the ranking, which nothing changes; the others can be hashed.
    """
    known: WeakKeyDictionary[Ranking, dict[Hashable, Tensor]] = WeakKeyDictionary()

    @wraps(function)
    def remembered(ranking: Ranking, *given: Hashable) -> Tensor:
        results = known.setdefault(ranking, {})
        if given not in results:
            results[given] = function(ranking, *given)
        return results[given]

    return remembered

"""What every method has to beat, and no compression at all."""

from __future__ import annotations

from foveate.budget import Uniform
from foveate.errors import MethodError
from foveate.method import Method
from foveate.methods.accounting import ScopeName, scope_named
from foveate.methods.paper import paper
from foveate.reduce import Evict
from foveate.schedule import AfterPrefill
from foveate.score import Constant, Random, Recency

__all__ = ["full", "random", "recency"]


@paper("Random choice, the baseline")
def random(keep: float | int = 0.1, *, seed: int = 0, scope: ScopeName = "visual") -> Method:
    """Return a method that keeps tokens by lot, differently in each head and layer.

    The lot depends on seed, layer, head and position alone. `keep` counts visual tokens
    (`scope="unified"`: all tokens); layers keep alike.

    Differs from the paper: there is none.
    """
    return Method(scope_named(scope), Random(seed), Uniform(keep), Evict(), AfterPrefill())


@paper("The newest tokens, the baseline")
def recency(keep: float | int = 0.1, *, scope: ScopeName = "visual") -> Method:
    """Return a method that keeps the last tokens.

    `keep` counts visual tokens (`scope="unified"`: all tokens); layers keep alike.

    Differs from the paper: there is none.
    """
    return Method(scope_named(scope), Recency(), Uniform(keep), Evict(), AfterPrefill())


@paper("No compression")
def full(keep: float = 1.0, *, scope: ScopeName = "visual") -> Method:
    """Return the method that keeps everything; `keep` can only be 1.0, under any scope.

    Differs from the paper: there is none.
    """
    if keep != 1.0 or isinstance(keep, (bool, int)):
        raise MethodError(
            f"keep={keep!r} does not go with full, which keeps everything; "
            "leave keep out, or choose another method"
        )
    return Method(scope_named(scope), Constant(), Uniform(1.0), Evict(), AfterPrefill())

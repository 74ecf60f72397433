"""RoCo: tokens whose attention fluctuates are not judged yet."""

from __future__ import annotations

from typing import Literal

from foveate.budget import Uniform
from foveate.method import Method
from foveate.methods.accounting import Accounting, cadence, check_room, scope_named
from foveate.methods.h2o import h2o
from foveate.methods.paper import paper
from foveate.option import check_choice, check_count
from foveate.reduce import Evict
from foveate.schedule import Steady
from foveate.scope import All
from foveate.score import Fluctuation

__all__ = ["roco"]


@paper(
    "On the Efficacy of Eviction Policy for Key-Value Constrained Generative Language Model "
    "Inference",
    arxiv="2402.06262",
)
def roco(
    keep: float | int = 0.2,
    *,
    variant: Literal["roco", "lookm"] = "roco",
    sinks: int = 4,
    newest: int = 10,
    spread: float = 0.3,
    every: int | None = None,
    scope: Accounting = "native",
) -> Method:
    """Return RoCo (arXiv 2402.06262): of steady tokens those with the least mean attention go.

    Per layer and key-value head, over the c rows that see token j and with a[i, j] averaged over
    the head's query heads: `mean = sum a / c`, `std = sqrt(max(0, sum a^2 / c - mean^2))`. Of a
    budget of b tokens `floor(spread * b)` go to the highest std, the others to the highest mean.
    `keep` counts all tokens; the first `sinks` and the last `newest` are protected and inside the
    budget. While decoding the lowest mean goes of all but the protected and unsteady.

    `variant="lookm"` is what LOOK-M's tables call RoCo: the mean over all rows, which ranks as
    `h2o` does with half of the budget for the newest; `sinks`, `newest` and `spread` mean nothing
    to it. `every` and `scope` as in `h2o`.

    Differs from the paper:
    The prompt is compressed once, after its pass, where the program feeds it in chunks that see the
    reduced cache; protected tokens come off the budget first. The program's share of unsteady
    tokens is 0.3 while decoding (as here) and 0.1 while encoding, whatever is asked for. The
    variance is clamped at 0, where rounding made the program protect a token. Positions stay true.
    LOOK-M's program evicts from the prompt alone: `every=0`.
    """
    check_choice("variant", variant, ("roco", "lookm"))
    budget = Uniform(keep)
    check_count("sinks", sinks)
    check_count("newest", newest)
    steady = cadence(every, scope, Steady(spread))
    if variant == "lookm":
        return h2o(keep, every=every, scope=scope)
    check_room(budget.keep, sinks + newest, "sinks and newest", scope)
    return Method(
        scope_named(scope, All(sinks, newest)), Fluctuation(spread), budget, Evict(), steady
    )

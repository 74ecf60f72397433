"""H2O: heavy hitters and the newest tokens."""

from __future__ import annotations

from math import floor
from typing import Literal

from foveate.budget import Uniform
from foveate.method import Method
from foveate.methods.accounting import Accounting, cadence, scope_named
from foveate.methods.paper import paper
from foveate.option import check_choice, check_share
from foveate.reduce import Evict
from foveate.schedule import Accumulated
from foveate.scope import All
from foveate.score import AllText, Attention

__all__ = ["h2o"]


@paper("H2O: Heavy-Hitter Oracle for Efficient Generative Inference", arxiv="2306.14048")
def h2o(
    keep: float | int = 0.2,
    *,
    recent: float = 0.5,
    statistic: Literal["sum", "mean"] = "sum",
    every: int | None = None,
    scope: Accounting = "native",
) -> Method:
    """Return H2O (arXiv 2306.14048): what got the most attention so far stays, and what is newest.

    Per layer and key-value head a token j is worth `c[j] = sum over all rows i >= j of a[i, j]`, a
    being the attention of row i averaged over the head's query heads. While decoding c goes on, and
    the lowest c goes. `keep` counts all tokens; of a budget of b tokens the newest `R =
    floor(recent * b)`, R being fixed by the prompt, are protected and inside the budget.

    `statistic`: the sum, or the sum over the number of rows that see the token ("mean"). `every`:
    new tokens between two evictions while decoding (None: 1; 0: the prompt alone).
    `scope="visual"`: visual tokens compete, text stays on top, nothing goes while decoding.

    Differs from the paper:
    Query heads that share a key-value head decide together (the paper's models share none). All
    rows of a batch are treated alone (the program sums over the batch). The official programs are
    three: this one evicts and keeps true positions, as utils_real_drop does; the masking program's
    token that is neither heavy nor recent for one step does not exist here. The share of the
    newest is an option (paper: half). With `every` above 1 the sums are exact and eviction is late.
    """
    budget = Uniform(keep)
    check_share("recent", recent)
    check_choice("statistic", statistic, ("sum", "mean"))
    rule = "rate" if statistic == "mean" else "sum"
    part = recent * budget.keep
    newest = floor(part + 1e-6) if isinstance(budget.keep, int) else part
    return Method(
        scope_named(scope, All(recent=newest)),
        Attention(AllText("any"), "full", "per_kv_head", rule),
        budget,
        Evict(),
        cadence(every, scope, Accumulated(rule)),
    )

"""TOVA and StreamingLLM: no memory of attention but the newest row, or none at all."""

from __future__ import annotations

from foveate.budget import Uniform
from foveate.method import Method
from foveate.methods.accounting import Accounting, cadence, check_room, scope_named
from foveate.methods.paper import paper
from foveate.option import check_count
from foveate.reduce import Evict
from foveate.schedule import LatestRow, OldestFirst
from foveate.scope import All
from foveate.score import Attention, LastRows, Recency

__all__ = ["streaming", "tova"]


@paper("Transformers are Multi-State RNNs", arxiv="2401.06104")
def tova(
    keep: float | int = 0.2, *, every: int | None = None, scope: Accounting = "native"
) -> Method:
    """Return TOVA (arXiv 2401.06104): what the newest row looks at stays.

    A token is worth the attention of the last row, averaged over all query heads: one set for all
    heads of a layer. `keep` counts all tokens; none is protected, not even the newest. While
    decoding the newest row of each step decides. `every` and `scope` as in `h2o`.

    Differs from the paper:
    Nothing in the decision; the prompt is cut after its pass, which sees all of it. With
    `scope="visual"` the last row ranks visual tokens alone.
    """
    return Method(
        scope_named(scope, All()),
        Attention(LastRows(1, "any"), "full", "shared"),
        Uniform(keep),
        Evict(),
        cadence(every, scope, LatestRow("shared")),
    )


@paper("Efficient Streaming Language Models with Attention Sinks", arxiv="2309.17453")
def streaming(
    keep: float | int = 0.2,
    *,
    sinks: int = 4,
    every: int | None = None,
    scope: Accounting = "native",
) -> Method:
    """Return StreamingLLM (arXiv 2309.17453): the first tokens and the newest stay.

    `keep` counts all tokens; the first `sinks` are protected and inside the budget. While decoding
    the oldest token goes that is no sink. `every` and `scope` as in `h2o`.

    Differs from the paper:
    Positions stay true; the paper numbers the stored tokens anew, which has no meaning for images
    with positions in a grid. The prompt is cut after its pass, which sees all of it. With
    `scope="visual"` the last visual tokens stay.
    """
    budget = Uniform(keep)
    check_count("sinks", sinks)
    check_room(budget.keep, sinks, "sinks", scope)
    return Method(
        scope_named(scope, All(sinks)),
        Recency(),
        budget,
        Evict(),
        cadence(every, scope, OldestFirst()),
    )

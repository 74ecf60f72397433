"""Elastic Cache: tokens are averaged into the anchors beside them."""

from __future__ import annotations

from foveate.budget import Uniform
from foveate.errors import MethodError
from foveate.method import Method, Reduce, When
from foveate.methods.accounting import Accounting, cadence, check_room, scope_named
from foveate.methods.paper import paper
from foveate.option import check_count, check_flag
from foveate.reduce import Buckets, Evict
from foveate.schedule import OldestFirst
from foveate.scope import All
from foveate.score import AllText, Attention

__all__ = ["at_fixed_place", "elastic"]


@paper(
    "Efficient Inference of Vision Instruction-Following Models with Elastic Cache",
    arxiv="2407.18121",
)
def elastic(
    keep: float | int = 0.5,
    *,
    sinks: int = 1,
    merge: bool | None = None,
    distance: int = -25,
    every: int | None = None,
    scope: Accounting = "native",
) -> Method:
    """Return Elastic Cache (arXiv 2407.18121): what goes is averaged into the nearest that stays.

    Per layer a token j is worth `sum over all rows i >= j of a[i, j]`, a being the attention of row
    i averaged over all query heads: one set for all heads. The dropped tokens go, key and value, to
    the nearest kept one by position (the earlier one of two), which becomes their plain mean.
    `keep` counts all tokens; the first `sinks` and the last one are protected, inside the budget,
    and neither give nor receive. While decoding there is room for the share `keep` of all tokens
    seen, and what stands at index P goes, `P = kept of the prompt + distance` (half of the kept if
    that is below 1): the first P stay for good, behind them the oldest goes.

    `merge`: None merges natively, but not under `scope="visual"`, where this method is published
    without. `every` and `scope` as in `h2o`.

    Differs from the paper:
    Scores are ranked; the program takes the inverse permutation of the sorting for ranks, which
    keeps other tokens. Dropped tokens give their own keys (the program's are shifted by one), as
    many stay as `keep` says (one less there), and decoding goes on at true positions (there at the
    compacted length). Keys are averaged as they are stored, that is rotated, as in the program.
    With `every` above 1, or several tokens over, all that are over go at once.
    """
    budget = Uniform(keep)
    check_count("sinks", sinks)
    if merge is not None:
        check_flag("merge", merge)
    check_room(budget.keep, sinks + 1, "sinks and last token", scope)
    tokens = scope_named(scope, All(sinks, recent=1))
    merging = scope == "native" if merge is None else merge
    reduce: Reduce = Buckets(tokens) if merging else Evict()
    return Method(
        tokens,
        Attention(AllText("any"), "full", "shared", "sum"),
        budget,
        reduce,
        at_fixed_place(distance, every, scope),
    )


def at_fixed_place(distance: int, every: int | None, scope: str) -> When:
    """Return when to evict behind the first `kept + distance` tokens, to a share of those seen."""
    if isinstance(distance, bool) or not isinstance(distance, int) or distance > 0:
        raise MethodError(f"distance={distance!r} cannot be used; give a whole number, 0 or less")
    return cadence(every, scope, OldestFirst(distance), grows=True)

"""PrefixKV: every layer keeps the same share of its attention mass."""

from __future__ import annotations

from foveate.budget import Level, Sizes
from foveate.calibration.tables import load_table
from foveate.errors import MethodError
from foveate.method import Budget, Method
from foveate.methods.accounting import Accounting, check_room, scope_named
from foveate.methods.elastic import at_fixed_place
from foveate.methods.paper import paper
from foveate.option import check_count
from foveate.reduce import Evict
from foveate.scope import All
from foveate.score import AllText, Attention

__all__ = ["prefixkv"]


@paper(
    "PrefixKV: Adaptive Prefix KV Cache is What Vision Instruction-Following Models Need for "
    "Efficient Generation",
    arxiv="2412.03409",
)
def prefixkv(
    keep: float | int = 0.1,
    *,
    sizes: str = "online",
    sinks: int = 1,
    distance: int = -25,
    every: int | None = None,
    scope: Accounting = "native",
) -> Method:
    """Return PrefixKV (arXiv 2412.03409): layers lose the same share of their attention mass.

    Scores, protected tokens and decoding are those of `elastic`, without merging. Layer l, its
    scores sorted and divided by their sum, holds the share P_l(o) with its o best tokens; it keeps
    the fewest with `P_l(o) >= p`, where one p for all layers, found by halving, meets the budget.
    `keep` counts all tokens, on average over the layers; the first `sinks` and the last token are
    protected and inside the budget.

    `sizes`: "online" for every prompt anew, or the path of a table that `foveate calibrate sizes`
    wrote: its shares, scaled to `keep`. `distance`, `every` and `scope` as in `elastic`.

    Differs from the paper:
    Protected tokens are no part of the mass (the program sorts them too). Totals are exact: where
    no p meets the budget, the last tokens go to the layers with the lowest share, where the program
    stops within 5 tokens and scales. The search ends after 64 halvings (there it may not end). The
    program ships averages over ten prompts (offline); on what is published both do alike. Decoding
    goes on at true positions (there at the compacted length of the first layer).
    """
    if not isinstance(sizes, str):
        raise MethodError(
            f"sizes={sizes!r} cannot be used; give 'online' or the path of a table of sizes"
        )
    budget: Budget = Level(keep)
    if sizes != "online":
        table = load_table(sizes, "sizes")
        budget = Sizes(keep, table.per_layer, table)
    check_count("sinks", sinks)
    check_room(budget.keep, sinks + 1, "sinks and last token", scope)
    return Method(
        scope_named(scope, All(sinks, recent=1)),
        Attention(AllText("any"), "full", "shared", "sum"),
        budget,
        Evict(),
        at_fixed_place(distance, every, scope),
    )

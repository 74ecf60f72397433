"""TGV-KV: text that later text builds on says which image tokens matter."""

from __future__ import annotations

from typing import Literal

from foveate.budget import LayerShares, Uniform
from foveate.errors import MethodError
from foveate.method import Budget, Method
from foveate.methods.accounting import Accounting, cadence, check_room, scope_named
from foveate.methods.paper import paper
from foveate.option import check_choice, check_count
from foveate.reduce import Evict
from foveate.schedule import LatestRow
from foveate.scope import VisualFirst
from foveate.score import Grounded

__all__ = ["tgvkv"]


@paper("TGV-KV: Text-Grounded KV Eviction for Vision-Language Models", arxiv="2606.03075")
def tgvkv(
    keep: float | int = 0.1,
    *,
    sinks: int = 4,
    layers: Literal["mass", "uniform"] = "mass",
    decode: Literal["append", "official"] = "append",
    scope: Accounting = "native",
) -> Method:
    """Return TGV-KV (arXiv 2606.03075): image tokens go first, ranked by text that is looked at.

    Per layer, a being the attention averaged over all query heads and t_1 .. t_n the text behind
    the last image: `u[j] = sum_i a[t_i, t_j] / (n - j + 1)` over the rows i >= j, and an image
    token k is worth `sum_j u[j] a[t_j, k]`, a text token `sum_j a[t_j, k]`. Image tokens go before
    text; one set for all heads. Layers share the budget in proportion to the sum of a from that
    text to the images. `keep` counts all tokens; the first `sinks` and the last one are protected
    and inside the budget. `scope="visual"`: visual tokens count and may go, text stays on top.

    `layers`: by that mass, or alike. `decode`: "append" keeps all that is generated, as the paper
    is summarised to; "official" evicts one token per step, as the program does: the one that the
    newest row, averaged over all query heads, looks at least, images before text.

    Differs from the paper:
    Written from the program and summaries. Where a layer's share is more than all tokens the others
    get the rest (there it is lost), so that totals are exact. Where the budget is below the text,
    the best text stays and no image token, as in the summary. Several images are one pool, and the
    text behind the last one observes; a prompt without such text is observed by its last 32 visual
    tokens. With `decode="official"` the program passes over text by its place (the last slots),
    here text is known, and generated tokens are text; the room is that of the prompt.
    """
    check_choice("layers", layers, ("mass", "uniform"))
    check_choice("decode", decode, ("append", "official"))
    budget: Budget = Uniform(keep) if layers == "uniform" else LayerShares(keep, ("mass",), k_min=0)
    check_count("sinks", sinks)
    check_room(budget.keep, sinks + 1, "sinks and last token", scope)
    if decode == "official" and scope == "visual":
        raise MethodError(
            "decode='official' and scope='visual' contradict each other: under visual accounting "
            "what is generated stays; use decode='append', or scope='native'"
        )
    return Method(
        scope_named(scope, VisualFirst(sinks, recent=1)),
        Grounded(),
        budget,
        Evict(),
        cadence(int(decode == "official"), scope, LatestRow("shared")),
    )

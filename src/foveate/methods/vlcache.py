"""VL-Cache: the text behind the image observes, and says how dense a layer is."""

from __future__ import annotations

from math import floor
from typing import Literal

from foveate.budget import LayerShares
from foveate.method import Method
from foveate.methods.accounting import Accounting, scope_named
from foveate.methods.paper import paper
from foveate.option import check_share
from foveate.reduce import Evict
from foveate.schedule import AfterPrefill
from foveate.scope import All
from foveate.score import AllText, Density

__all__ = ["vlcache"]


@paper(
    "VL-Cache: Sparsity and Modality-Aware KV Cache Compression for Vision-Language Model "
    "Inference Acceleration",
    arxiv="2410.23317",
)
def vlcache(
    keep: float | int = 0.1,
    *,
    threshold: float = 0.01,
    window: float = 0.1,
    heads: Literal["shared", "per_kv_head"] = "shared",
    least: float = 0.01,
    scope: Accounting = "native",
) -> Method:
    """Return VL-Cache (arXiv 2410.23317): what the text behind the image looks at, stays.

    Per layer, over the rows i behind the last image, a token j is worth `sum_i a[i, j]`. A layer's
    density is the share of the pairs (i, j) with `a[i, j] >= threshold * max_j a[i, j]`, averaged
    over all query heads; layers share the budget in proportion to it, each with the share `least`
    of its tokens at least. `keep` counts all tokens, on average over the layers; the newest ones,
    the share `window` of the average budget, are protected and inside the budget.

    `heads`: one ranking for all heads, or one per key-value head, with the mean over its query
    heads. `scope="visual"`: visual tokens count and may go, text stays on top.

    Differs from the paper:
    There is no official program, and two points are open: whose scores are ranked (`heads`), and
    how what a layer cannot take is shared; here it goes to the others in proportion, so that totals
    are exact, and `least` is no more than the average budget. What is protected comes off the
    budget first, and the rest is shared by density. With several images the text behind the last
    one observes; a prompt that ends with its image is observed by its last 32 visual tokens, and
    one of text alone by all of it.
    """
    check_share("window", window)
    budget = LayerShares(keep, ("density",), k_min=0, least=least)
    part = window * budget.keep
    newest = floor(part + 1e-6) if isinstance(budget.keep, int) else float(part)
    return Method(
        scope_named(scope, All(recent=newest)),
        Density(AllText(), heads, threshold),
        budget,
        Evict(),
        AfterPrefill(),
    )

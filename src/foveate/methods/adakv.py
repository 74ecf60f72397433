"""AdaKV: SnapKV with more tokens for heads that look at more."""

from __future__ import annotations

from typing import Literal

from foveate.budget import PooledHeads, Uniform
from foveate.method import Method
from foveate.methods.accounting import Accounting
from foveate.methods.paper import paper
from foveate.methods.pyramidkv import Rounding, pyramid_of
from foveate.methods.window import Pooling, PoolOver, WindowOf, window_scope, window_score
from foveate.option import check_choice
from foveate.reduce import Evict
from foveate.schedule import AfterPrefill

__all__ = ["adakv"]


@paper(
    "Ada-KV: Optimizing KV Cache Eviction by Adaptive Budget Allocation for Efficient LLM "
    "Inference",
    arxiv="2407.11550",
)
def adakv(
    keep: float | int = 0.1,
    *,
    alpha: float = 0.2,
    normalize: bool = False,
    layers: Literal["uniform", "pyramid"] = "uniform",
    beta: float = 20.0,
    rounding: Rounding = "exact",
    window: int = 32,
    kernel: int = 5,
    pooling: Pooling = "avg",
    window_of: WindowOf = "text",
    pool_over: PoolOver = "rows",
    scope: Accounting = "native",
) -> Method:
    """Return Ada-KV (arXiv 2407.11550): `snapkv`, with a layer's budget shared by its heads.

    Of a layer's H * b best scores over all key-value heads n[h] are of head h, b being the tokens
    per head of what may go: head h keeps its own `(1 - alpha) * n[h] + alpha * b` best. `alpha=1`
    is `snapkv`, `alpha=0` one ranking of all heads. `keep` counts all tokens, on average over the
    heads; the window is protected in every head and inside the budget.

    `normalize`: for the comparison a head's scores are multiplied by the share of them that its b
    best hold. `layers`: alike, or in a line as in `pyramidkv`, with its `beta`. `rounding`: whole
    numbers with exactly the layer's total, or as the program ("official"): each head rounded, up to
    one token per head off, and the steps of `pyramidkv`. The other options as in `snapkv`.

    Differs from the paper:
    As `snapkv`. Heads are key-value heads (an option of the program, which otherwise copies keys to
    query heads), reduced by the mean. The program's defaults differ between its files: alpha 0.5 or
    0.2, kernel 7 with the maximum, `normalize` off; ports to other programs have it on.
    """
    check_choice("layers", layers, ("uniform", "pyramid"))
    line = pyramid_of(keep, beta, rounding)
    inner = line if layers == "pyramid" else Uniform(keep)
    return Method(
        window_scope(keep, window, window_of, scope),
        window_score(window, kernel, pooling, window_of, pool_over),
        PooledHeads(inner, alpha, normalize, rounding),
        Evict(),
        AfterPrefill(),
    )

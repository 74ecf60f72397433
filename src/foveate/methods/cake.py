"""CAKE: layers whose attention is spread and shifts get more."""

from __future__ import annotations

from foveate.budget import LayerShares
from foveate.method import Method
from foveate.methods.accounting import Accounting, cadence
from foveate.methods.paper import paper
from foveate.methods.window import PoolOver, WindowOf, pooling_of, rows_of, window_scope
from foveate.reduce import Evict
from foveate.schedule import LatestRow
from foveate.score import Shifting

__all__ = ["cake"]


@paper(
    "CAKE: Cascading and Adaptive KV Cache Eviction with Layer Preferences",
    arxiv="2503.12491",
)
def cake(
    keep: float | int = 0.1,
    *,
    window: int = 32,
    kernel: int = 5,
    gamma: float = 200.0,
    tau1: float = 1.0,
    tau2: float = 1.0,
    window_of: WindowOf = "text",
    pool_over: PoolOver = "rows",
    every: int | None = None,
    scope: Accounting = "native",
) -> Method:
    """Return CAKE (arXiv 2503.12491): shifting attention counts, in tokens and in layers.

    Per layer and key-value head a token j is worth `mean_i a[i, j] + gamma * var_i a[i, j]` over
    the window's rows i, averaged over the head's query heads and over the `kernel` tokens around j.
    Layers share the budget in proportion to `H^(1/tau1) * V^(1/tau2)`, H being the entropy
    `-sum a log a` and V the sum of the variances, over all heads and the tokens that may go.
    `keep` counts all tokens, on average over the layers; the window is protected and inside the
    budget. While decoding the token goes that the rows since the last look, averaged over the
    head's query heads and over `kernel` stored neighbours, look at least, but for the newest
    `window`.

    `tau1` and `tau2` were chosen per model and budget by the paper, from 0.4 to 1.9 and 0.4 to 2.3.
    `every` as in `h2o`; the other options as in `snapkv`.

    Differs from the paper:
    While later layers are read, earlier ones lose only what cannot stay in the end (in the
    program's cascade also what could: where a budget grows again, its tokens are gone). What a
    layer cannot take goes to the others in proportion (there in equal parts). While decoding
    neighbours are those by position (there slots lie in the order of their scores). Short prompts
    are compressed too (there not below the budget plus a window). A window of one row has no
    variance, and layers are then alike. Entropy and variance are of each row of a batch. As
    `snapkv` in windows and pooling.
    """
    score = Shifting(rows_of(window, window_of), gamma, tau1, tau2)
    return Method(
        window_scope(keep, window, window_of, scope),
        pooling_of(score, kernel, "avg", pool_over),
        LayerShares(keep, ("preference",), k_min=0),
        Evict(),
        cadence(every, scope, LatestRow("per_kv_head", kernel, rows="all")),
    )

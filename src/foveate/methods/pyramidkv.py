"""PyramidKV: SnapKV with fewer tokens in later layers."""

from __future__ import annotations

from typing import Literal

from foveate.budget import Pyramid, Steps
from foveate.method import Budget, Method
from foveate.methods.accounting import Accounting
from foveate.methods.paper import paper
from foveate.methods.window import Pooling, PoolOver, WindowOf, window_scope, window_score
from foveate.option import check_choice
from foveate.reduce import Evict
from foveate.schedule import AfterPrefill

__all__ = ["Rounding", "pyramid_of", "pyramidkv"]

Rounding = Literal["exact", "official"]


@paper(
    "PyramidKV: Dynamic KV Cache Compression based on Pyramidal Information Funneling",
    arxiv="2406.02069",
)
def pyramidkv(
    keep: float | int = 0.1,
    *,
    beta: float = 20.0,
    rounding: Rounding = "exact",
    window: int = 32,
    kernel: int = 5,
    pooling: Pooling = "avg",
    window_of: WindowOf = "text",
    pool_over: PoolOver = "rows",
    scope: Accounting = "native",
) -> Method:
    """Return PyramidKV (arXiv 2406.02069): `snapkv`, with more tokens in early layers.

    With n tokens per layer of what may go, layers fall in a straight line from `2n - n / beta` to
    `n / beta`; where the first would have more than the V there are, from V to `2n - V`. `beta=1`
    is `snapkv`. `keep` counts all tokens, on average over the layers; the window is protected and
    inside the budget.

    `rounding`: "exact" has exactly the total; "official" rounds as the program, in steps of
    `(most - least) // (N - 1)`, which adds up to more than the total (by 5 to 15 percent where the
    budget is small), and has the same number in every layer where 2n is more than the prompt. The
    other options as in `snapkv`.

    Differs from the paper:
    As `snapkv`: one choice per key-value head, windows of text, pooling within rows of images. The
    program adds the window to a budget that is given without it; here it is inside in every case.
    Its line is made anew for every prompt, where copies in other programs keep that of the first.
    The program pools the maximum over 7 with a window of 8 on LongBench.
    """
    return Method(
        window_scope(keep, window, window_of, scope),
        window_score(window, kernel, pooling, window_of, pool_over),
        pyramid_of(keep, beta, rounding),
        Evict(),
        AfterPrefill(),
    )


def pyramid_of(keep: float | int, beta: float, rounding: str) -> Budget:
    """Return the budget of layers in a line, rounded as that word says."""
    check_choice("rounding", rounding, ("exact", "official"))
    return Pyramid(keep, beta) if rounding == "exact" else Steps(keep, beta)

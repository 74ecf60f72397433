"""SnapKV: what the end of the prompt looks at is what will be needed."""

from __future__ import annotations

from foveate.budget import Uniform
from foveate.method import Method
from foveate.methods.accounting import Accounting
from foveate.methods.paper import paper
from foveate.methods.window import Pooling, PoolOver, WindowOf, window_scope, window_score
from foveate.reduce import Evict
from foveate.schedule import AfterPrefill

__all__ = ["snapkv"]


@paper("SnapKV: LLM Knows What You are Looking for Before Generation", arxiv="2404.14469")
def snapkv(
    keep: float | int = 0.1,
    *,
    window: int = 32,
    kernel: int = 5,
    pooling: Pooling = "avg",
    window_of: WindowOf = "text",
    pool_over: PoolOver = "rows",
    scope: Accounting = "native",
) -> Method:
    """Return SnapKV (arXiv 2404.14469): what the window at the prompt's end looks at, stays.

    Per layer and key-value head a token j is worth `a[j] = mean over window rows i and the head's
    query heads of softmax(q[i] . k)[j]`, and then the mean of a over the `kernel` tokens around j.
    `keep` counts all tokens, alike in every layer; the window is protected and inside the budget.
    `scope="visual"`: visual tokens count and may go, text stays on top.

    `window`: how many tokens observe, the last ones of the text behind the last image
    (`window_of="text"`) or of the prompt ("any"). `pooling`: mean, maximum or none, of an odd
    `kernel`. `pool_over`: "sequence" pools over all columns in a line and takes zeros behind its
    ends; "spans" not over a border between text and image, or two images; "rows" nor over a row of
    an image. `window_of="any"` with `pool_over="sequence"` is what the program does.

    Differs from the paper:
    Query heads that share a key-value head decide together (the program copies keys to all query
    heads and stores the copies). By default only text observes and is protected: a question is
    often shorter than the window, which then lies in the image. A prompt without text behind its
    image is observed by its last 32 visual tokens, and nothing is protected. Pooling keeps to rows
    of images, and divides by the neighbours that exist. Window and kernel are those of the
    program's defaults for generation (class: 64 and 5).
    """
    return Method(
        window_scope(keep, window, window_of, scope),
        window_score(window, kernel, pooling, window_of, pool_over),
        Uniform(keep),
        Evict(),
        AfterPrefill(),
    )

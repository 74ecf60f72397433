"""SparseMM: SnapKV with more tokens for the few heads that read the image."""

from __future__ import annotations

from foveate.budget import HeadTable
from foveate.calibration.tables import load_table
from foveate.errors import MethodError
from foveate.method import Method
from foveate.methods.accounting import Accounting
from foveate.methods.paper import paper
from foveate.methods.window import Pooling, PoolOver, WindowOf, window_scope, window_score
from foveate.reduce import Evict
from foveate.schedule import AfterPrefill

__all__ = ["sparsemm"]


@paper(
    "SparseMM: Head Sparsity Emerges from Visual Concept Responses in MLLMs",
    arxiv="2506.05344",
)
def sparsemm(
    keep: float | int = 0.1,
    *,
    table: str = "flat",
    rho: float = 0.1,
    redistribute: bool = False,
    window: int = 32,
    kernel: int = 5,
    pooling: Pooling = "avg",
    window_of: WindowOf = "text",
    pool_over: PoolOver = "rows",
    scope: Accounting = "native",
) -> Method:
    """Return SparseMM (arXiv 2506.05344): `snapkv`, with budgets by how much a head reads images.

    Heads of all N layers were scored once per model by how often they look at the word that is
    being read; s sums to 1 over all N * H key-value heads, scores of a group being added. With M
    tokens per head of what may go a head keeps `rho M + s (1 - rho) M N H` of its best, and all
    there is at most. `keep` counts all tokens, on average over heads and layers; the window is
    protected in every head and inside the budget.

    `table`: the path of a table that `foveate heads` wrote, "flat" for equal scores (without one,
    this is `snapkv`, up to rounding), or "random" for a fixed draw, the paper's control.
    `redistribute`: every head is rounded by itself and what it cannot take is lost, as in the
    program, which then keeps less than the budget (half of it and less where budgets are large), or
    that goes to the others, with an exact total. The other options as in `snapkv`.

    Differs from the paper:
    As `snapkv`. The share for all is not rounded down before the rest is added, and what is beyond
    the prompt is cut off before anything else. The paper's formula adds the share twice; its text
    and its program do not, nor does this. Scores are measured by `foveate heads`, whose rules are
    on the page about heads.
    """
    if not isinstance(table, str):
        raise MethodError(
            f"table={table!r} cannot be used; give 'flat', 'random' or the path of a table of heads"
        )
    given = table if table in ("flat", "random") else load_table(table, "heads")
    return Method(
        window_scope(keep, window, window_of, scope),
        window_score(window, kernel, pooling, window_of, pool_over),
        HeadTable(keep, given, rho, redistribute),
        Evict(),
        AfterPrefill(),
    )

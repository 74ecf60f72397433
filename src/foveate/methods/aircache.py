"""AirCache: an elite of the instruction observes, strength and skewness share the budget."""

from __future__ import annotations

from typing import Literal

from foveate.budget import LayerShares, Pyramid, Uniform
from foveate.method import Budget, Method, Reduce, Score
from foveate.methods.accounting import ScopeName, scope_named
from foveate.methods.paper import paper
from foveate.option import check_choice, check_count
from foveate.reduce import Evict, Merge
from foveate.schedule import AfterPrefill
from foveate.score import (
    AllText,
    Attention,
    Described,
    Elite,
    LastRows,
    LastVisual,
    Nearby,
    PerImage,
    Spread,
)
from foveate.score.window import Window

__all__ = ["aircache"]

WINDOWS = ("elite", "contiguous", "all_text", "last_visual")
BUDGETS = {"both": ("strength", "skewness"), "strength": ("strength",), "skewness": ("skewness",)}


@paper("AirCache: Activating Inter-modal Relevancy KV Cache Compression", arxiv="2503.23956")
def aircache(
    keep: float | int = 0.1,
    *,
    alpha: float = 0.9,
    window: Literal["elite", "contiguous", "all_text", "last_visual"] = "elite",
    window_rows: int = 32,
    window_heads: Literal["mean_prob", "per_head", "per_kv_group", "concat_logits"] = "mean_prob",
    text: Literal[
        "after_last_visual", "after_first_visual", "all_text", "all_text_but_sink"
    ] = "after_last_visual",
    exclude_special: bool = False,
    softmax: Literal["restricted", "full"] = "restricted",
    heads: Literal["shared", "per_kv_head"] = "shared",
    budget: Literal["both", "strength", "skewness", "uniform", "pyramid"] = "both",
    beta: float = 20.0,
    norm: Literal["sum", "minmax", "softmax_z"] = "sum",
    k_min: int = 1,
    overflow: Literal["redistribute", "clip_only"] = "redistribute",
    negative_skew: Literal["clamp0", "shift_min"] = "clamp0",
    skew_space: Literal["raw", "log"] = "raw",
    ties: Literal["earlier", "spread"] = "earlier",
    per_image_floor: int = 0,
    neighbours: Literal["none", "line"] = "none",
    merge: float = 0.0,
    merge_nearest: Literal["position", "key"] = "position",
    positions: Literal["original", "compacted"] = "original",
    scope: ScopeName = "visual",
    recompress: bool = True,
) -> Method:
    """Return AirCache (arXiv 2503.23956): what an elite of the instruction looks at, stays.

    Per layer: the elite E are the instruction tokens with `a[j] >= alpha * max(a)`, where a is
    the attention of the last instruction token over the instruction, averaged over heads. A
    visual token is worth `I[i] = mean over heads and e in E of softmax(q[e] . [K_visual;
    K_E])[i]`. Over all layers l, `R = round(keep * V * N)` tokens are shared in proportion to
    `(S[l] / sum S + max(G[l], 0) / sum max(G, 0)) / 2`, where S is the sum of I and G its
    skewness. `keep` counts visual tokens; text is protected and comes on top (`scope="unified"`:
    all tokens count and may go). An int is tokens per layer on average.

    `window`: who observes: the elite, the last `window_rows` instruction tokens, the whole
    instruction, or the last `window_rows` visual tokens; `alpha` and `window_heads` concern the
    elite alone. `softmax`: over visual and window keys, or over all. `heads`: one ranking, or one
    per key-value head. `budget`: by both statistics, one of them, alike, or a pyramid with slope
    `beta`.

    Differs from the paper:
    The paper leaves open what are options here: which text is the instruction (`text`: behind the
    last image, so that every row sees every image), the heads of the window (`window_heads`),
    least and greatest budgets (`k_min`, `overflow`), negative skewness (`negative_skew`). Totals
    are exact by largest remainder, unless keep * V * N is less than k_min per layer, which is
    then kept. With `merge > 0` the best-scored share of the dropped tokens is merged into the
    nearest kept visual token (the paper does not say which share). A prompt without text behind
    its image is observed by its last 32 visual tokens. `per_image_floor` (that many tokens of
    every image at least, as far as a layer's budget goes, the same for all heads), `ties` and
    `neighbours` ("line": visual tokens take over the highest score around them, most of all along
    their row of patches, as in `foveate`; S and G are those of I) are ours.
    """
    score: Score = Attention(
        chosen_window(window, window_rows, alpha, window_heads, text, exclude_special),
        softmax,
        heads,
    )
    score = Described(score, skew_space)
    check_choice("neighbours", neighbours, ("none", "line"))
    if neighbours == "line":
        score = Nearby(score)
    check_choice("ties", ties, ("earlier", "spread"))
    check_count("per_image_floor", per_image_floor)
    if per_image_floor:
        score = PerImage(score, per_image_floor)
    if ties == "spread":
        score = Spread(score)
    merging = Merge(merge, merge_nearest)
    reduce: Reduce = merging if merge else Evict()
    return Method(
        scope_named(scope),
        score,
        chosen_budget(budget, keep, beta, norm, k_min, overflow, negative_skew),
        reduce,
        AfterPrefill(recompress, positions),
    )


def chosen_window(
    window: str, rows: int, alpha: float, heads: str, text: str, exclude_special: bool
) -> Window:
    """Return the window with that name; all options are checked, also those it does not use."""
    check_choice("window", window, WINDOWS)
    check_count("window_rows", rows, least=1)
    windows: dict[str, Window] = {
        "elite": Elite(alpha, text, heads, exclude_special),
        "contiguous": LastRows(rows, text, exclude_special),
        "all_text": AllText(text, exclude_special),
        "last_visual": LastVisual(rows),
    }
    return windows[window]


def chosen_budget(
    budget: str,
    keep: float | int,
    beta: float,
    norm: str,
    k_min: int,
    overflow: str,
    negative_skew: str,
) -> Budget:
    """Return the budget with that name; all options are checked, also those it does not use."""
    check_choice("budget", budget, (*BUDGETS, "uniform", "pyramid"))
    by = BUDGETS.get(budget, BUDGETS["both"])
    shares = LayerShares(keep, by, norm, k_min, overflow, negative_skew)
    given: dict[str, Budget] = {
        "uniform": Uniform(keep, k_min),
        "pyramid": Pyramid(keep, beta, k_min),
    }
    return given.get(budget, shares)

"""LOOK-M: images go before text, and what goes is folded into similar keys."""

from __future__ import annotations

from math import floor, isclose
from numbers import Real
from typing import Literal

from foveate.budget import Uniform, Union
from foveate.errors import MethodError
from foveate.method import Budget, Method, Reduce, Scope
from foveate.methods.accounting import Accounting, check_room, scope_named
from foveate.methods.paper import paper
from foveate.option import check_choice, check_count, check_flag
from foveate.reduce import Evict, Fold
from foveate.schedule import AfterPrefill
from foveate.scope import All, VisualFirst
from foveate.score import AllText, Attention

__all__ = ["lookm"]


@paper(
    "LOOK-M: Look-Once Optimization in KV Cache for Efficient Multimodal Long-Context Inference",
    arxiv="2406.18139",
)
def lookm(
    keep: float | int = 0.2,
    *,
    alpha1: float | None = None,
    alpha2: float | None = None,
    merge: Literal["pivotal", "averaged", "weighted", "none"] = "pivotal",
    fold: Literal["auto", "values", "both"] = "auto",
    budget: Literal["union", "strict"] = "union",
    text_prior: bool = True,
    within_modality: bool = False,
    sinks: int = 0,
    scope: Accounting = "native",
) -> Method:
    """Return LOOK-M (arXiv 2406.18139): text before images, the rest folded into similar keys.

    Per layer and key-value head a token j is worth `sum over all rows i >= j of a[i, j]`, a being
    averaged over the head's query heads. The newest `R = floor(alpha1 * T)` tokens (and the first
    `sinks`) are protected and inside the budget, of the rest text stays before images. Every
    dropped token e goes to the kept token c with the highest cosine s of keys, and with n of them
    `x[c] = (x[c] + sum_e y[e]) / (n + 1)`, y[e] being `(x[e] + x[c]) / 2` (pivotal), `x[e]`
    (averaged) or `s * x[e]` (weighted). `keep` counts all tokens and is `alpha1 + alpha2`, the
    recent and the important share (or numbers, if it is one), halves if neither is given.

    `fold`: what changes by folding: "values", "both" keys and values, or "auto": both, but values
    alone in models whose images have positions in a grid (an average of keys that were rotated at
    different positions is no rotated key). `budget="union"`: all text stays, though it be more than
    `keep`; "strict": text beyond it goes. `text_prior=False`: text and images compete.
    `within_modality`: text goes to text, images to images. `scope="visual"`: visual tokens count
    and may go, text stays on top.

    Differs from the paper:
    Paper and program fold keys of every model (`fold="both"`). The text prior is an order and no
    number added to scores, which in half precision erases the order of the images. `union` is the
    program's budget; the paper names both. Weighted folding leaves none of the dropped tokens out,
    and averaged folding pairs each with its own target (the program does neither). Key-value heads
    that are shared average over their queries, and merge alone. Without a text prior there is no
    union. A prompt without an image keeps all under `union`, as there; a short prompt may have R=0.
    """
    check_choice("merge", merge, ("pivotal", "averaged", "weighted", "none"))
    check_choice("fold", fold, ("auto", "values", "both"))
    check_choice("budget", budget, ("union", "strict"))
    check_flag("text_prior", text_prior)
    check_flag("within_modality", within_modality)
    check_count("sinks", sinks)
    even = Uniform(keep)
    recent = recent_part(even.keep, alpha1, alpha2)
    if isinstance(recent, int):
        check_room(even.keep, sinks + recent, "sinks and recent tokens", scope)
    tokens: Scope = VisualFirst(sinks, recent) if text_prior else All(sinks, recent)
    counts: Budget = Union(even) if budget == "union" and text_prior else even
    reduce: Reduce = Evict() if merge == "none" else Fold(merge, fold, within_modality)
    return Method(
        scope_named(scope, tokens),
        Attention(AllText("any"), "full", "per_kv_head", "sum"),
        counts,
        reduce,
        AfterPrefill(),
    )


def recent_part(keep: float | int, alpha1: float | None, alpha2: float | None) -> float | int:
    """Return alpha1 as a share of the prompt or a number of tokens, as `keep` is."""
    for name, alpha in (("alpha1", alpha1), ("alpha2", alpha2)):
        number = isinstance(alpha, Real) and not isinstance(alpha, bool)
        if alpha is not None and not (number and 0 <= alpha <= keep):
            raise MethodError(f"{name}={alpha!r} cannot be used; give a number from 0 to {keep}")
        if alpha is not None and isinstance(keep, int) and alpha != floor(alpha):
            raise MethodError(
                f"{name}={alpha!r} does not go with keep={keep}, a number of tokens; give a whole "
                "number, or a share for keep"
            )
    if alpha1 is not None and alpha2 is not None and not isclose(alpha1 + alpha2, keep):
        raise MethodError(
            f"alpha1={alpha1} and alpha2={alpha2} do not sum to keep={keep}; leave one of them out"
        )
    if alpha1 is None:
        alpha1 = keep / 2 if alpha2 is None else keep - alpha2
    return floor(alpha1) if isinstance(keep, int) else float(alpha1)

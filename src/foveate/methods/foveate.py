"""Foveate's own: what the question looks at sharply, what lies around it, and what is there."""

from __future__ import annotations

from typing import Literal

from foveate.budget import Joint, Reach
from foveate.method import Budget, Method
from foveate.methods.accounting import ScopeName, scope_named
from foveate.methods.auto import AUTO
from foveate.methods.paper import paper
from foveate.methods.window import rows_of
from foveate.reduce import Evict
from foveate.schedule import AfterPrefill
from foveate.score import Nearby, Peaks, Valued

__all__ = ["foveate"]


@paper("Foveate's own preset, made of the parts of other methods")
def foveate(
    keep: float | int | Literal["auto"] = 0.1,
    *,
    mass: float = 0.95,
    over: Literal["layer", "head", "model"] = "layer",
    fade: float = 0.5,
    before: int = 2,
    after: int = 5,
    far: float = 0.3,
    values: float = 4.0,
    alpha: float = 0.05,
    window: int = 32,
    scope: ScopeName = "visual",
) -> Method:
    """Return Foveate's own preset: what is looked at sharply, its surroundings, long values stay.

    Per layer and key-value head, over the last `window` rows of the text behind the last image,
    `e[j] = sum_i w[i] a[i, j]^2 / sum_i w[i]`, averaged over the head's query heads: the last row
    weighs 1, every other one `fade` times what the next one does. A token hands e to the `before`
    tokens on its left and the `after` tokens on its right in its row of patches, and `far` times e
    to these columns of the rows above and below and to the rest of its row; n[j] is the highest
    that reaches j. It is worth `n[j] + values * V[j]`, V being lengths of values, stretched to
    0..1 and scaled to the mean of n in the head. Of the R tokens to be kept a head gets
    `(1 - alpha) * r + alpha * (an even part)`, where r of the R best scores over the heads of all
    layers are its own. `keep` counts visual tokens; text is protected and comes on top
    (`scope="unified"`: all tokens count and may go). An int is tokens per head and layer on
    average.

    `keep="auto"`: the fewest tokens, in the order of their worth, that hold the share `mass` of
    `sum_i w[i] a[i, j]` over all visual tokens: in every layer, whose heads are in one line
    (`over="layer"`), in every head, or in one line over the whole model.

    Squares make heads that look sharply at the image count, in every prompt anew, where SparseMM
    needs a table measured on one model; answers are read on to the right of what the question
    finds, in its line, which `before` and `after` say (exchange them for scripts that run to the
    left); what values tell is for questions that were not asked yet. Numbers were chosen on the
    embedded model, on documents that no report uses.

    Differs from the paper:
    There is none. A prompt without text behind its image is observed by its last 32 visual tokens.
    Where the grid of an image is not known, its tokens are one row, and `far` concerns nothing.
    """
    auto = keep == AUTO
    reach = Reach(mass, over)
    joint = Joint(0.1 if auto else keep, alpha)  # type: ignore[arg-type]  # a word is refused there
    budget: Budget = reach if auto else joint
    score = Peaks(rows_of(window, "text"), fade, mass=auto)
    return Method(
        scope_named(scope),
        Valued(Nearby(score, before, after, far), values),
        budget,
        Evict(),
        AfterPrefill(),
    )

"""InfiniPot-V: of a video stays what changes over time, and what has long values."""

from __future__ import annotations

from typing import Literal

from foveate.budget import Uniform
from foveate.method import Method, Score
from foveate.methods.accounting import Accounting, scope_named
from foveate.methods.paper import paper
from foveate.option import check_choice, check_share
from foveate.reduce import Evict
from foveate.schedule import AfterPrefill
from foveate.scope import Visual
from foveate.score import Changing, Smoothed, ValueNorm

__all__ = ["infinipotv"]


@paper(
    "InfiniPot-V: Memory-Constrained KV Cache Compression for Streaming Video Understanding",
    arxiv="2506.15745",
)
def infinipotv(
    keep: float | int = 0.25,
    *,
    alpha: float = 0.5,
    recent: float = 0.25,
    pooling: Literal["none", "adaptive"] = "none",
    scope: Accounting = "native",
) -> Method:
    """Return InfiniPot-V (arXiv 2506.15745): recent frames, what changed, and long values stay.

    Per layer and key-value head, C being the budget, the first `floor(alpha * C)` places go to the
    tokens of the last `floor(recent * frames)` frames (one at least), and then to those older ones
    with the highest `-mean over recent frames of cos(key, key of the same patch)`; the rest of C
    goes to the highest `|v[j]|`. `keep` counts visual tokens, alike in every layer; text stays on
    top, and `scope="visual"` is the same as "native".

    Frames are those of a video whose grid is known (Qwen's: pairs of pictures), and images. They
    must have as many tokens each; otherwise, and for one image, all goes by `|v|`. `pooling`:
    "adaptive" averages `|v|` over patches: a box of 7 in time, height and width in the first
    quarter of the layers, 5 in height and width in the second, 3 in order in the third.

    Differs from the paper:
    In one shot on the whole prompt, where the paper compresses block by block while a video streams
    in, and never the last block. The share of the change is rounded down (the program rounds that
    of the norms, to even). Where it does not hold all recent frames, the newest are taken first
    (the program fails). Images and videos of a prompt are one sequence of frames. `pooling` is the
    program's; the paper chooses kernels by the variation of the norms, with thresholds that it
    does not state, and the published scripts pool nothing.
    """
    check_share("alpha", alpha)
    check_choice("pooling", pooling, ("none", "adaptive"))
    norms: Score = ValueNorm()
    if pooling == "adaptive":
        norms = Smoothed(norms)
    return Method(
        scope_named(scope, Visual()),
        Changing(norms, alpha, recent),
        Uniform(keep),
        Evict(),
        AfterPrefill(),
    )

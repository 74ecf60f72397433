"""Methods that read no query: lengths of keys and values, and the directions of keys."""

from __future__ import annotations

from foveate.budget import Dense, Uniform
from foveate.method import Budget, Method
from foveate.methods.accounting import Accounting, scope_named
from foveate.methods.paper import paper
from foveate.option import check_count
from foveate.reduce import Evict
from foveate.schedule import AfterPrefill
from foveate.scope import All
from foveate.score import KeyDifference, KeyNorm, ValueNorm

__all__ = ["keydiff", "knorm", "vnorm"]


@paper("A Simple and Effective L2 Norm-Based Strategy for KV Cache Compression", arxiv="2406.11430")
def knorm(keep: float | int = 0.5, *, skip_layers: int = 0, scope: Accounting = "native") -> Method:
    """Return KNorm (arXiv 2406.11430): the tokens with the shortest keys stay.

    Per layer and key-value head token j is worth `-|k[j]|`; rotation leaves lengths as they are.
    `keep` counts all tokens, alike in every layer; none is protected. `scope="visual"`: visual
    tokens count and may go, text stays on top.

    `skip_layers`: that many first layers of the model keep everything, on top of `keep`, which is
    then the share of the other layers.

    Differs from the paper:
    The prompt is cut whenever it has been read, of whatever length (the program waits for 2048
    tokens), and once; totals are rounded over all layers (there up, in every layer). No layer is
    skipped unless asked for; the paper skips the first two.
    """
    check_count("skip_layers", skip_layers)
    budget: Budget = Uniform(keep)
    if skip_layers:
        budget = Dense(budget, skip_layers)
    return Method(scope_named(scope, All()), KeyNorm(), budget, Evict(), AfterPrefill())


@paper(
    "InfiniPot-V: Memory-Constrained KV Cache Compression for Streaming Video Understanding",
    arxiv="2506.15745",
)
def vnorm(keep: float | int = 0.5, *, scope: Accounting = "native") -> Method:
    """Return the value norm of InfiniPot-V (arXiv 2506.15745): tokens with long values stay.

    Per layer and key-value head token j is worth `|v[j]|`. `keep` counts all tokens, alike in every
    layer; none is protected. `scope="visual"`: visual tokens count and may go, text stays on top.

    Differs from the paper:
    There it fills what temporal redundancy leaves of a video's budget, and text is never counted
    (`infinipotv` is the whole method); here it ranks all tokens by itself.
    """
    return Method(scope_named(scope, All()), ValueNorm(), Uniform(keep), Evict(), AfterPrefill())


@paper(
    "KeyDiff: Key Similarity-Based KV Cache Eviction for Long-Context LLM Inference in "
    "Resource-Constrained Environments",
    arxiv="2504.15364",
)
def keydiff(keep: float | int = 0.5, *, scope: Accounting = "native") -> Method:
    """Return KeyDiff (arXiv 2504.15364): keys that point another way than the others stay.

    Per layer and key-value head token j is worth `-cos(k[j], sum_i k[i] / |k[i]|)`, the sum being
    over all tokens of the row, text and images, rotated as they are. `keep` counts all tokens,
    alike in every layer; none is protected. `scope="visual"`: visual tokens count and may go, text
    stays on top.

    Differs from the paper:
    In one shot over the whole prompt; the paper reads the prompt in blocks, and evicts with a new
    mean after each.
    """
    return Method(
        scope_named(scope, All()), KeyDifference(), Uniform(keep), Evict(), AfterPrefill()
    )

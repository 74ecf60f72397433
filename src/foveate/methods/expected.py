"""Expected attention: what queries that are yet to come are going to look at."""

from __future__ import annotations

from foveate.budget import Uniform
from foveate.method import Method
from foveate.methods.accounting import Accounting, check_room, scope_named
from foveate.methods.paper import paper
from foveate.reduce import Evict
from foveate.schedule import AfterPrefill
from foveate.scope import All
from foveate.score import Expected

__all__ = ["expected"]


@paper(
    "Expected Attention: KV Cache Compression by Estimating Attention from Future Queries "
    "Distribution",
    arxiv="2510.00636",
)
def expected(
    keep: float | int = 0.5,
    *,
    future: int = 512,
    sinks: int = 4,
    covariance: bool = True,
    values: bool = True,
    epsilon: float = 0.0,
    scope: Accounting = "native",
) -> Method:
    """Return Expected Attention (arXiv 2510.00636): what future queries would look at, stays.

    Per layer and query head, m and C are mean and covariance of the row's queries before rotation,
    then rotated by the average of the rotations at the next `future` positions: `z[j] = s m . k[j]
    + s^2 k[j] . C k[j] / 2` with the model's scaling s, `p = softmax(z)` over the tokens that may
    go, and token j is worth `(p[j] + epsilon) |v[j]|`, p averaged over the head's query heads.
    `keep` counts all tokens; the first `sinks` are protected and inside the budget, and their
    queries are not read. `scope="visual"`: visual tokens count and may go, text stays on top.

    `covariance=False` leaves the second term out, `values=False` the factor |v|. An observation
    must say how the model rotates (`Observation.rotation`); a loaded model says it by itself.

    Differs from the paper:
    Queries are unrotated, where the program projects hidden states anew. Where images have
    positions in time, height and width (M-RoPE), only the text behind the last image is read; in
    a prompt without such text the last 32 visual tokens are, as if they all stood at its end. With
    `scope="visual"` the softmax is over visual tokens. A prompt of sinks alone reads their
    queries.
    """
    budget = Uniform(keep)
    score = Expected(future, sinks, covariance, values, epsilon)
    check_room(budget.keep, sinks, "sinks", scope)
    return Method(scope_named(scope, All(sinks)), score, budget, Evict(), AfterPrefill())

"""MixKV: another method's scores, mixed with what is unlike the rest of its head."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from foveate import methods
from foveate.calibration.tables import load_table
from foveate.errors import MethodError, nearest
from foveate.method import Method
from foveate.methods.accounting import Accounting
from foveate.methods.paper import describe, paper
from foveate.score import Mixed

__all__ = ["mixkv"]


@paper(
    "Mixing Importance with Diversity: Joint Optimization for KV Cache Compression in Large "
    "Vision-Language Models",
    arxiv="2510.20707",
)
def mixkv(
    keep: float | int | None = None,
    *,
    host: str | Method = "snapkv",
    importance: Literal[
        "attention+vnorm", "attention", "vnorm", "knorm", "attention+knorm", "none"
    ] = "attention+vnorm",
    diversity: Literal["keys", "none"] = "keys",
    mix: Literal["head", "offline", "half", "sum"] = "head",
    table: str | None = None,
    scale: Literal["code", "paper"] = "code",
    scope: Accounting | None = None,
    **host_options: Any,
) -> Method:
    """Return MixKV (arXiv 2510.20707): a host's scores, mixed with the diversity of keys.

    Per layer and key-value head, of the tokens that may go: A are the host's scores with mean m; V
    are lengths of values, stretched to 0..1 and scaled to mean m; I = A + V. With mu the mean of
    all T unit keys of the row, D is `-k . mu / |k|`, stretched and scaled likewise, and `r = (T
    |mu|^2 - 1) / (T - 1)` the mean cosine of two keys. A token is worth `r D + (1 - r) I`. `keep`,
    `scope` (None: the host's defaults) and what is protected are the host's; its budgets are drawn
    from A, and what it takes first by another rule (`roco`, `infinipotv`) stays unmixed.

    `host`: the name of a method, which takes all other options (`host_table` is its `table`), or a
    `Method`. `foveate.method("mixkv+adakv")` is `host="adakv"`. `importance`: what I adds up,
    "knorm" being `-|k|`. `mix`: r as above, from a `table` that `foveate calibrate redundancy`
    wrote ("offline"), one half, or `D + I`, which has the same order. `scale`: D has mean m as in
    the program ("code"), or that of I ("paper").

    The rows of the paper's ablation (Table 4), on any host: `diversity="none"` with `importance`
    "attention" (its baseline, the host), "attention+knorm" and "attention+vnorm";
    `importance="none"` (diversity alone); `mix="sum"`; `mix="offline"` with a table; the default.

    Differs from the paper:
    Equal lengths or directions give zeros (in the program, no numbers). The published main program
    mixes with one model's table for all models; the program for interfaces computes r for each
    prompt, as here. With the default host windows and pooling are those of `snapkv`, text alone
    observing. Any method can be the host; where scores can be negative, m is the mean of their
    sizes. Rules for decoding are the host's, unmixed.
    """
    if isinstance(host, Method):
        given = {"keep": keep, "scope": scope, **host_options}
        named = [name for name, value in given.items() if value is not None]
        if named:
            raise MethodError(
                f"host is a finished method, and {', '.join(named)} came besides; give options to "
                "the host, or give the host by name"
            )
        inner = host
    else:
        inner = hosted(host, keep, scope, host_options)
    if isinstance(inner.score, Mixed):
        raise MethodError("mixkv cannot be its own host; give another method, such as 'snapkv'")
    measured = None if table is None else load_table(table, "redundancy")
    score = Mixed(inner.score, importance, diversity, mix, measured, scale)
    return replace(inner, score=score)


def hosted(
    host: str, keep: float | int | None, scope: str | None, options: dict[str, Any]
) -> Method:
    """Return the host of that name; an option may have "host_" before its name."""
    if not isinstance(host, str):
        raise MethodError(
            f"host={host!r} cannot be used; give the name of a method, or a method such as "
            "foveate.snapkv(keep=0.1)"
        )
    options = unprefixed({"keep": keep, "scope": scope, **options})
    theirs = [
        option.name for info in methods.methods() if info.name == host for option in info.options
    ]
    for name in options:
        if theirs and name not in theirs:
            known = {*theirs, *(option.name for option in describe(mixkv).options)}
            raise MethodError(
                f"neither mixkv nor its host {host} has an option {name!r}; {nearest(name, known)}"
            )
    return methods.method(host, **options)


def unprefixed(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that have a value, without the "host_" before some names."""
    given = {name: value for name, value in options.items() if value is not None}
    plain: dict[str, Any] = {}
    for name, value in given.items():
        short = name.removeprefix("host_")
        if short in plain:
            raise MethodError(f"{short} and host_{short} are one option of the host; give one")
        plain[short] = value
    return plain

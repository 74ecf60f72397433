"""Presets: one function per paper, and the registry that finds them by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from foveate.errors import MethodError, nearest
from foveate.method import Method
from foveate.methods.adakv import adakv
from foveate.methods.aircache import aircache
from foveate.methods.auto import AUTO, until, weighs
from foveate.methods.baselines import full, random, recency
from foveate.methods.cake import cake
from foveate.methods.elastic import elastic
from foveate.methods.expected import expected
from foveate.methods.foveate import foveate
from foveate.methods.h2o import h2o
from foveate.methods.infinipotv import infinipotv
from foveate.methods.lookm import lookm
from foveate.methods.mixkv import mixkv
from foveate.methods.norms import keydiff, knorm, vnorm
from foveate.methods.paper import MethodInfo, Option, describe
from foveate.methods.prefixkv import prefixkv
from foveate.methods.pyramidkv import pyramidkv
from foveate.methods.roco import roco
from foveate.methods.snapkv import snapkv
from foveate.methods.sparsemm import sparsemm
from foveate.methods.stateless import streaming, tova
from foveate.methods.tgvkv import tgvkv
from foveate.methods.vlcache import vlcache

__all__ = [
    "MethodInfo",
    "Option",
    "adakv",
    "aircache",
    "cake",
    "elastic",
    "expected",
    "foveate",
    "full",
    "h2o",
    "infinipotv",
    "keydiff",
    "knorm",
    "lookm",
    "method",
    "methods",
    "mixkv",
    "prefixkv",
    "pyramidkv",
    "random",
    "recency",
    "roco",
    "snapkv",
    "sparsemm",
    "streaming",
    "tgvkv",
    "tova",
    "vlcache",
    "vnorm",
]

PRESETS: tuple[Callable[..., Method], ...] = (
    foveate,
    aircache,
    snapkv,
    pyramidkv,
    adakv,
    sparsemm,
    vlcache,
    cake,
    h2o,
    tova,
    streaming,
    roco,
    elastic,
    prefixkv,
    tgvkv,
    lookm,
    knorm,
    vnorm,
    keydiff,
    expected,
    infinipotv,
    mixkv,
    random,
    recency,
    full,
)


def method(name: str, keep: float | int | str | None = None, **options: Any) -> Method:
    """Return the method of that name; without `keep`, with the preset's own default.

    "mixkv+adakv" is mixkv with the host adakv. `keep="auto"` takes as many tokens as hold the share
    `mass` (0.95) of the scores that `over` says ("layer"), in place of the preset's own budget; its
    scores have to be attention. Raises `MethodError` for an unknown name, option or value.
    """
    if keep == AUTO and name != "foveate":
        mass, over = options.pop("mass", 0.95), options.pop("over", "layer")
        takers = [p.__name__ for p in PRESETS if p is foveate or weighs(p().score)]
        return until(name, method(name, **options), mass, over, takers)
    known = {preset.__name__: preset for preset in PRESETS}
    if isinstance(name, str) and name.partition("+")[0] in known and "+" in name:
        name, options = with_host(name, options, known)
    if not isinstance(name, str) or name not in known:
        hint = nearest(str(name), known)
        raise MethodError(f"there is no method {name!r}; {hint}; `foveate methods` lists all")
    preset = known[name]
    if keep is not None:
        options = {"keep": keep, **options}
    allowed = [option.name for option in describe(preset).options]
    for option in options:
        if option not in allowed and not describe(preset).more:
            hint = nearest(option, allowed) if allowed else "it has none"
            raise MethodError(f"{name} has no option {option!r}; {hint}")
    return preset(**options)


def with_host(
    name: str, options: dict[str, Any], known: Mapping[str, Callable[..., Method]]
) -> tuple[str, dict[str, Any]]:
    """Return the name before the first plus, and options with the host behind it."""
    outer, _, host = name.partition("+")
    if not describe(known[outer]).more:
        takers = ", ".join(word for word in known if describe(known[word]).more)
        raise MethodError(f"{outer} takes no host, so that there is no {name!r}; {takers} does")
    if "host" in options:
        raise MethodError(f"{name!r} has a host, and host={options['host']!r} came; give one")
    return outer, {"host": host, **options}


def methods() -> list[MethodInfo]:
    """Return what is known about every method, in the order of the registry."""
    return [describe(preset) for preset in PRESETS]

"""Foveate shrinks the key-value cache of vision-language models and frees the bytes."""

from typing import TYPE_CHECKING, Any

from foveate.errors import (
    CacheError,
    FoveateError,
    InputError,
    MethodError,
    MissingExtra,
    UnsupportedModel,
)
from foveate.kernels.allocate import allocate
from foveate.kernels.column_stats import column_stats
from foveate.method import Method, apply, plan
from foveate.methods import (
    MethodInfo,
    adakv,
    aircache,
    cake,
    elastic,
    expected,
    foveate,
    full,
    h2o,
    infinipotv,
    keydiff,
    knorm,
    lookm,
    method,
    methods,
    mixkv,
    prefixkv,
    pyramidkv,
    random,
    recency,
    roco,
    snapkv,
    sparsemm,
    streaming,
    tgvkv,
    tova,
    vlcache,
    vnorm,
)
from foveate.types import LayerKV, Observation, Plan, TokenKinds

if TYPE_CHECKING:
    from foveate.cache.report import CacheReport
    from foveate.hf import CompressedCache, Session, compress

__version__ = "0.1.0"

__all__ = [
    "CacheError",
    "CacheReport",
    "CompressedCache",
    "FoveateError",
    "InputError",
    "LayerKV",
    "Method",
    "MethodError",
    "MethodInfo",
    "MissingExtra",
    "Observation",
    "Plan",
    "Session",
    "TokenKinds",
    "UnsupportedModel",
    "adakv",
    "aircache",
    "allocate",
    "apply",
    "cake",
    "column_stats",
    "compress",
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
    "plan",
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


def __getattr__(name: str) -> Any:
    """Import what needs transformers when it is first asked for."""
    if name in ("CompressedCache", "Session", "compress"):
        import foveate.hf

        return getattr(foveate.hf, name)
    if name == "CacheReport":
        from foveate.cache.report import CacheReport

        return CacheReport
    raise AttributeError(f"module 'foveate' has no attribute {name!r}")

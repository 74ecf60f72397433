"""Methods that evict while decoding, and a cache that tells what it stored before every pass."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

import foveate
import gold
from families import BY_NAME
from foveate.budget import Uniform
from foveate.method import Method
from foveate.reduce import Evict
from foveate.schedule import LatestRow, WhileDecoding
from foveate.scope import All
from foveate.score import Attention, LastRows
from seam import cache_for

FAMILIES = [BY_NAME[name] for name in ("qwen2-vl", "llava-onevision", "internvl", "llama")]
OPTIONS: dict[str, dict[str, Any]] = {
    "h2o": {},
    "tova": {},
    "streaming": {},
    "roco": {"newest": 4, "sinks": 2},
    "elastic": {"merge": False},
    "prefixkv": {},
    "cake": {"window": 4},
}
NAMES = [*OPTIONS, "pooled"]


def method(name: str, keep: float | int, every: int = 1) -> Method:
    """A preset by name, or one made by hand: the newest row of each head, smoothed."""
    if name != "pooled":
        return foveate.method(name, keep=keep, every=every, **OPTIONS[name])
    return Method(
        All(sinks=1, recent=2),
        Attention(LastRows(4, "any"), "full", "per_kv_head"),
        Uniform(keep),
        Evict(),
        WhileDecoding(LatestRow("per_kv_head", kernel=3), every),
    )


@dataclass
class Watched:
    """What a cache stored before every pass but the first, and how much after every pass."""

    cache: Any
    stages: list[gold.Stage] = field(default_factory=list)
    stored: list[list[int]] = field(default_factory=list)  # per pass and layer
    nbytes: list[list[int]] = field(default_factory=list)
    passes: list[int] = field(default_factory=list)  # tokens

    def layers(self) -> list[Any]:
        """The layers that are compressed."""
        return [layer for layer in self.cache.layers if hasattr(layer, "store")]

    def hidden(self) -> dict[int, Tensor]:
        """Per layer what is not stored now, [B, H, length]."""
        return {layer.index: missing(layer.store) for layer in self.layers()}


def watched(family: Any, model: Any, inputs: Any, made: Method) -> Watched:
    """A compressed cache that is watched."""
    watch = Watched(cache_for(family, model, inputs, made))
    begin, end = watch.cache.begin, watch.cache.end

    def before(kwargs: Any, tokens: int) -> None:
        if watch.cache.seen:
            watch.stages.append(gold.Stage(watch.cache.seen, watch.hidden()))
        watch.passes.append(tokens)
        begin(kwargs, tokens)

    def after() -> None:
        end()
        for layer in watch.layers():
            layer.store.check()
        watch.stored.append([layer.store.stored for layer in watch.layers()])
        watch.nbytes.append([layer.store.nbytes for layer in watch.layers()])

    watch.cache.begin, watch.cache.end = before, after
    return watch


def missing(store: Any) -> Tensor:
    """Which of the positions so far a store has not, [B, H, length]."""
    B, H = store.keys.shape[:2]
    logical = store.logical().expand(B, H, -1)
    there = torch.zeros(B, H, store.seen + 1, dtype=torch.bool)
    there.scatter_(-1, torch.where(logical >= 0, logical, store.seen), True)
    return ~there[..., :-1]


def positions(hidden: Tensor) -> list[list[list[int]]]:
    """Stored positions per row and head of what is hidden."""
    return [[(~head).nonzero().flatten().tolist() for head in row] for row in hidden]

"""The part of `decode` in which `generate` runs the steps, eagerly and compiled.

Compiled steps need caches whose sizes stay: transformers' own static cache, which holds all tokens,
and ours with storage="static". Times are those between two tokens, so that they have in them what
`generate` does besides.
"""

import shutil
from collections.abc import Callable
from typing import Any

import foveate
from foveate.bench.model import Prompted
from foveate.bench.result import Spread
from foveate.bench.timing import CLOCKS, Times, shuffled, summary
from foveate.hf.storage import STORAGES

FULL, FULL_COMPILED = "full cache", "full cache, compiled"
DENSE, STATIC, STATIC_COMPILED = "dense", "static", "static, compiled"
SKIPPED = 3  # first steps, in which what is compiled may be guarded anew
ROUNDS = 3


def can_compile(device: str) -> bool:
    """Return whether torch finds what it compiles with."""
    return device != "cpu" or any(shutil.which(name) for name in ("g++", "clang++", "c++"))


def variants(device: str) -> dict[str, bool]:
    """Return the variants that can be run, and whether they are compiled."""
    found = {FULL: False, FULL_COMPILED: True, DENSE: False, STATIC: False, STATIC_COMPILED: True}
    return {
        name: compiled
        for name, compiled in found.items()
        if (can_compile(device) or not compiled) and ("static" in STORAGES or "static" not in name)
    }


def measure_generate(
    prompted: Prompted, method: foveate.Method, setting: Any, tick: Callable[[], None]
) -> dict[str, Any]:
    """Return times between tokens of all variants, ratios, and the graphs of what was compiled."""
    import torch._dynamo

    chosen = variants(setting.device)
    times: Times = {name: [] for name in chosen}
    graphs: dict[str, dict[str, int]] = {}
    kept: dict[str, float] = {}
    torch._dynamo.reset()
    for number in range(-1, min(ROUNDS, setting.rounds)):  # round -1 compiles
        for name in chosen if number < 0 else shuffled(list(chosen), number):
            torch._dynamo.utils.counters.clear()
            cache = _cache(prompted, method, name, setting.steps)
            options = _options(prompted, chosen[name], setting.backend)
            clock = CLOCKS[setting.clock]
            spent = prompted.generate(cache, setting.steps + SKIPPED, clock, **options)
            if number >= 0:
                times[name].append(Spread.of(spent[SKIPPED:]).median)
                continue
            kept[name] = _kept(prompted, cache)
            if chosen[name]:
                graphs[name] = _graphs()
        tick()
    torch._dynamo.reset()
    pairs = [(STATIC, DENSE), (STATIC_COMPILED, DENSE), (STATIC_COMPILED, FULL_COMPILED)]
    pairs += [(name, FULL) for name in chosen if name != FULL]
    pairs = [pair for pair in pairs if set(pair) <= set(chosen)]
    return {**summary(times, pairs), "kept": kept, "graphs": graphs}


def _cache(prompted: Prompted, method: foveate.Method, name: str, steps: int) -> Any:
    if name == FULL:
        return prompted.native_cache()
    if name == FULL_COMPILED:
        return prompted.static_cache(prompted.size.tokens + steps + SKIPPED)
    storage = "dense" if name == DENSE else "static"
    return foveate.CompressedCache(prompted.model, method, storage=storage)


def _options(prompted: Prompted, compiled: bool, backend: str) -> dict[str, Any]:
    return prompted.compiling(backend) if compiled else {"disable_compile": True}


def _kept(prompted: Prompted, cache: Any) -> float:
    """Return how many tokens of the prompt a head holds on average."""
    if not isinstance(cache, foveate.CompressedCache):
        return float(prompted.size.tokens)
    report, heads = cache.report(), range(prompted.size.kv_heads)
    counts = [len(report.kept(x.layer, 0, head)) for x in report.layers for head in heads]
    return sum(counts) / len(counts)


def _graphs() -> dict[str, int]:
    """Return how many graphs were compiled since the counters were cleared, and broken."""
    from torch._dynamo.utils import counters

    return {
        "graphs": counters["stats"]["unique_graphs"],
        "breaks": sum(counters["graph_break"].values()),
    }

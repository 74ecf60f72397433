"""Methods with every option that mixes heads, and tables for them: what several processes share."""

import random
from pathlib import Path
from typing import Any

import foveate
from foveate.budget import Level, PooledHeads, Reach, Uniform
from foveate.calibration.tables import save_table
from foveate.method import Budget, Method, Scope, Score
from foveate.reduce import Evict
from foveate.schedule import AfterPrefill
from foveate.scope import All, Visual
from foveate.score import AllText, Attention, Density, Elite, Grounded, Pooled, Shifting

TABLES = {"heads": "scores", "redundancy": "redundancy", "sizes": "shares"}
SMALL: dict[str, dict[str, Any]] = {  # windows that short prompts have room beside
    "snapkv": {"window": 4},
    "pyramidkv": {"window": 4},
    "adakv": {"window": 4},
    "sparsemm": {"window": 4},
    "cake": {"window": 4},
    "mixkv": {"window": 4},
    "roco": {"newest": 4, "sinks": 2},
}
VARIANTS: tuple[tuple[str, dict[str, Any]], ...] = (
    *((info.name, SMALL.get(info.name, {})) for info in foveate.methods()),
    ("aircache", {"heads": "per_kv_head", "per_image_floor": 3, "merge": 0.3}),
    ("aircache", {"window_heads": "per_head", "skew_space": "log", "positions": "compacted"}),
    ("aircache", {"window_heads": "per_kv_group", "heads": "per_kv_head", "norm": "softmax_z"}),
    ("aircache", {"window_heads": "concat_logits", "ties": "spread", "alpha": 0.5}),
    ("adakv", {"window": 4, "alpha": 0.0, "normalize": True, "layers": "pyramid"}),
    ("adakv", {"window": 4, "rounding": "official", "alpha": 0.5, "pooling": "max"}),
    ("sparsemm", {"window": 4, "table": "random", "redistribute": True}),
    ("sparsemm", {"window": 4, "table": "heads"}),
    ("mixkv+adakv", {"window": 4}),
    ("mixkv+sparsemm", {"window": 4, "host_table": "heads", "mix": "offline",
                        "table": "redundancy"}),
    ("mixkv+aircache", {"scale": "paper", "importance": "attention+knorm"}),
    ("mixkv+prefixkv", {"mix": "half"}),
    ("vlcache", {"heads": "per_kv_head", "threshold": 0.05}),
    ("cake", {"window": 4, "tau1": 1.6, "tau2": 0.4, "every": 1}),
    ("prefixkv", {"sizes": "sizes"}),
    ("prefixkv", {"every": 1}),
    ("h2o", {"every": 1, "statistic": "mean"}),
    ("tova", {"every": 1}),
    ("mixkv+tova", {"every": 1}),
    ("roco", {"newest": 4, "sinks": 2, "every": 1}),
    ("elastic", {"every": 1, "merge": False}),
    ("streaming", {"every": 1}),
    ("tgvkv", {"decode": "official"}),
    ("lookm", {"budget": "strict", "fold": "both"}),
    ("lookm", {"scope": "visual", "merge": "weighted"}),
    ("infinipotv", {"pooling": "adaptive"}),
)  # fmt: skip


def named(name: str, keep: float, options: dict[str, Any], tables: dict[str, str]) -> Method:
    """The method; where an option is the name of a kind of table it gets the table's file."""
    filled = {key: tables.get(value, value) if isinstance(value, str) else value
              for key, value in options.items()}  # fmt: skip
    return foveate.method(name, keep=None if name == "full" else keep, **filled)


def by_hand(keep: float) -> dict[str, Method]:
    """Methods that no preset makes: windows of single heads where others expect one for all."""
    each = Elite(0.5, heads="per_head")
    parts: dict[str, tuple[Scope, Score, Budget]] = {
        "level": (All(), Attention(AllText(), "full", "per_kv_head"), Level(keep)),
        "reach": (All(), Attention(AllText(), "full", "per_kv_head"), Reach(keep)),
        "each": (All(), Attention(AllText(), "full", "per_kv_head"), Reach(keep, "head")),
        "whole": (Visual(), Attention(AllText(), "full", "shared"), Reach(keep, "model")),
        "density": (Visual(), Density(each, "per_kv_head"), Uniform(keep)),
        "grounded": (Visual(), Grounded(each), Uniform(keep)),
        "pooled": (Visual(), Pooled(Shifting(each), 3), PooledHeads(Uniform(keep), 0.1)),
    }
    return {name: Method(*three, Evict(), AfterPrefill()) for name, three in parts.items()}


def write_tables(
    folder: Path, layers: int, query_heads: int, kv_heads: int, model: str = "made-up"
) -> dict[str, str]:
    """Write a table of each kind with made-up numbers and return where they are."""
    draw, files = random.Random(5), {}
    width = {"heads": query_heads, "redundancy": kv_heads, "sizes": 1}
    for kind, numbers in TABLES.items():
        rows = [[draw.uniform(0.1, 0.9) for _ in range(width[kind])] for _ in range(layers)]
        content: dict[str, Any] = {
            "format": f"foveate-{kind}",
            "version": 1,
            "model": model,
            "layers": layers,
            "query_heads": query_heads,
            "kv_heads": kv_heads,
            numbers: [row[0] for row in rows] if kind == "sizes" else rows,
            "keep": 0.4,
        }
        files[kind] = str(folder / f"{kind}.json")
        save_table(files[kind], content)
    return files

"""Prefill with scores over all rows, against the whole L x L matrix: each in a process of its own.

The eager variant is H2O as the papers' programs run it: probabilities of all rows are in memory at
once, summed over rows, and the cache is cut to the heavy hitters and the newest tokens.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import foveate
from foveate.bench.cases import CLOCKS, summary
from foveate.bench.subject import Size, Subject, build
from foveate.bench.sums import resident
from foveate.errors import CacheError

VARIANTS = ("full cache", "h2o", "lookm", "h2o, eager L x L")
FULL, EAGER = VARIANTS[0], VARIANTS[-1]
SIZE = Size(layers=4, kv_heads=2, visual=(90, 90), text=92)  # 8,192 tokens


@dataclass(frozen=True)
class RowsSetting:
    """What is run: `keep` of all tokens, `rounds` prefills after one that warms up."""

    size: Size = SIZE
    keep: float = 0.2
    seed: int = 20260
    rounds: int = 3
    device: str = "cpu"
    clock: str = "wall"

    def to_dict(self) -> dict[str, Any]:
        """Return the setting as plain values."""
        return asdict(self)


def measure_rows(setting: RowsSetting, tick: Callable[[str], None]) -> dict[str, Any]:
    """Return times, peaks and kept tokens of all variants; `tick` hears of every finished one."""
    told: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for variant in VARIANTS:
            words = {**setting.to_dict(), "variant": variant, "folder": folder}
            command = [sys.executable, "-m", "foveate.bench.rows", json.dumps(words)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode != 0:
                raise CacheError(f"{variant} could not be measured:\n{done.stderr[-2000:]}")
            told[variant] = json.loads(done.stdout.splitlines()[-1])
            tick(variant)
        ours, eager = (torch.load(Path(folder) / f"{name}.pt") for name in ("h2o", EAGER))
    times = {variant: numbers["milliseconds"] for variant, numbers in told.items()}
    pairs = [(variant, FULL) for variant in VARIANTS[1:]] + [(v, EAGER) for v in VARIANTS[1:-1]]
    case = {
        **summary(times, pairs),
        "extra_bytes": {variant: numbers["extra_bytes"] for variant, numbers in told.items()},
        "kept_alike": agreement(ours, eager),
    }
    return {f"{setting.size.tokens:,} tokens": case}


def rows_table(cases: dict[str, Any], clock: str) -> dict[str, Any]:
    """Return times and memory of every variant as columns and rows of text, for documents."""
    rows = []
    for case, result in cases.items():
        for variant in VARIANTS:
            ratio = result["ratios"].get(f"{variant} / {FULL}", {"median": 1.0})["median"]
            memory = f"{result['extra_bytes'][variant] / 2**20:,.0f} MiB"
            rows.append([case, variant, f"{ratio:.2f}", memory])
    return {"columns": ["prompt", "prefill", f"{clock} time / full cache", "memory"], "rows": rows}


def agreement(ours: list[Tensor], eager: list[Tensor]) -> float:
    """Return the share of kept tokens that both sides keep."""
    same = sum(int((a & b).sum()) for a, b in zip(ours, eager, strict=True))
    return same / sum(int(a.sum()) for a in ours)


def run(words: dict[str, Any]) -> dict[str, Any]:
    """Return one variant's times, and by how many bytes its prefills made the process grow."""
    clock = CLOCKS[words["clock"]]
    size = Size(**{**words["size"], "visual": tuple(words["size"]["visual"])})
    subject = build(size, words["seed"], "cpu", torch.float32)
    small = build(Size(layers=1, visual=(4, 4)), 1, "cpu", torch.float32)
    prefill = {
        FULL: native,
        "h2o": compressing(foveate.h2o(keep=words["keep"], every=0)),
        "lookm": compressing(foveate.lookm(keep=words["keep"])),
        EAGER: lambda subject: eager(subject, words["keep"]),
    }[words["variant"]]
    spent, keep = [], []
    with torch.no_grad():
        prefill(small)
        before = resident("VmRSS")
        for _ in range(words["rounds"] + 1):
            began = clock()
            keep = prefill(subject)
            spent.append(1000 * (clock() - began))
    torch.save(keep, Path(words["folder"]) / f"{words['variant']}.pt")
    return {"milliseconds": spent[1:], "extra_bytes": resident("VmHWM") - before}


def native(subject: Subject) -> list[Tensor]:
    """Prefill the native cache; nothing is chosen."""
    subject.prefill(subject.native_cache())
    return []


def compressing(method: foveate.Method) -> Callable[[Subject], list[Tensor]]:
    """Return a prefill into a compressed cache, which says what every layer keeps, [H, T]."""

    def prefill(subject: Subject) -> list[Tensor]:
        cache = foveate.CompressedCache(subject.model, method)
        subject.prefill(cache)
        report, T = cache.report(), subject.size.tokens
        kept = []
        for layer in report.layers:
            mask = torch.zeros(subject.size.kv_heads, T, dtype=torch.bool)
            for head in range(subject.size.kv_heads):
                mask[head, report.kept(layer.layer, 0, head)] = True
            kept.append(mask)
        return kept

    return prefill


def eager(subject: Subject, keep: float) -> list[Tensor]:
    """Prefill with the whole matrix of every layer, sum its columns, and cut the cache."""
    cache = subject.native_cache()
    sums = subject.prefill_with_matrices(cache)
    total = round(keep * subject.size.tokens * len(sums))
    return [
        cut(cache.layers[i], score, total // len(sums) + (i < total % len(sums)), keep / 2)
        for i, score in enumerate(sums)
    ]


def cut(layer: Any, score: Tensor, count: int, recent: float) -> Tensor:
    """Keep the newest tokens and the highest sums of one layer; return which they are, [H, T]."""
    T = score.shape[-1]
    newest = int(recent * T + 1e-6)
    score = score.clone()
    score[:, T - newest :] = torch.inf
    keep = torch.zeros_like(score, dtype=torch.bool)
    keep.scatter_(-1, score.topk(count).indices, True)
    index = keep.nonzero()[:, 1].view(1, keep.shape[0], count, 1)
    layer.keys = layer.keys.gather(2, index.expand(-1, -1, -1, layer.keys.shape[-1]))
    layer.values = layer.values.gather(2, index.expand(-1, -1, -1, layer.values.shape[-1]))
    return keep


if __name__ == "__main__":
    sys.stdout.write(json.dumps(run(json.loads(sys.argv[1]))) + "\n")

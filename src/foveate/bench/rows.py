"""Prefill with scores over all rows, against the whole L x L matrix: each in a process of its own.

The eager variant is H2O as the papers' programs run it: probabilities of all rows are in memory at
once, summed over rows, and the cache is cut to the heavy hitters and the newest tokens.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import foveate
from foveate.bench.result import Spread
from foveate.bench.subject import Size, Subject, build
from foveate.errors import CacheError

VARIANTS = ("full cache", "h2o", "lookm", "h2o, eager L x L")
FULL, EAGER = VARIANTS[0], VARIANTS[-1]
SIZE = Size(layers=4, kv_heads=2, visual=(90, 90), text=92)  # 8,194 tokens with the two markers


@dataclass(frozen=True)
class Rows:
    """What is run: `keep` of all tokens, `rounds` prefills after one that warms up."""

    size: Size = SIZE
    keep: float = 0.2
    seed: int = 20260
    rounds: int = 3


def measure(setting: Rows, tick: Callable[[str], None]) -> dict[str, Any]:
    """Return times, peaks and kept tokens of all variants; `tick` hears of every finished one."""
    told: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for variant in VARIANTS:
            words = {"variant": variant, "keep": setting.keep, "seed": setting.seed}
            words |= {"rounds": setting.rounds, "size": vars(setting.size), "folder": folder}
            command = [sys.executable, "-m", "foveate.bench.rows", json.dumps(words)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode != 0:
                raise CacheError(f"{variant} could not be measured:\n{done.stderr[-2000:]}")
            told[variant] = json.loads(done.stdout.splitlines()[-1])
            tick(variant)
        ours, eager = (torch.load(Path(folder) / f"{name}.pt") for name in ("h2o", EAGER))
    return {**told, "same tokens kept as eager": agreement(ours, eager)}


def agreement(ours: list[Tensor], eager: list[Tensor]) -> float:
    """Return the share of kept tokens that both sides keep."""
    same = sum(int((a & b).sum()) for a, b in zip(ours, eager, strict=True))
    return same / sum(int(a.sum()) for a in ours)


def run(words: dict[str, Any]) -> dict[str, Any]:
    """Return one variant's seconds, and the bytes that its prefills added to the process."""
    size = Size(**{**words["size"], "visual": tuple(words["size"]["visual"])})
    subject = build(size, words["seed"], "cpu", torch.float32)
    small = build(Size(layers=1, visual=(4, 4)), 1, "cpu", torch.float32)
    prefill = {
        FULL: native,
        "h2o": compressing(foveate.h2o(keep=words["keep"], every=0)),
        "lookm": compressing(foveate.lookm(keep=words["keep"])),
        EAGER: lambda subject: eager(subject, words["keep"]),
    }[words["variant"]]
    with torch.no_grad():
        prefill(small)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        seconds, keep = [], []
        for _ in range(words["rounds"] + 1):
            began = time.perf_counter()
            keep = prefill(subject)
            seconds.append(time.perf_counter() - began)
    peak = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    torch.save(keep, Path(words["folder"]) / f"{words['variant']}.pt")
    return {"seconds": Spread.of(seconds[1:]).to_dict(), "peak_bytes": peak}


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
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

    sums: list[Tensor] = []

    def attend(module: Any, q: Tensor, k: Tensor, v: Tensor, mask: Any, **kwargs: Any) -> Any:
        groups = q.shape[1] // k.shape[1]
        weights = (q @ k.repeat_interleave(groups, 1).mT) * kwargs["scaling"]
        if hasattr(module, "layer_idx"):
            hidden = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).triu(1)
            weights = weights.masked_fill(hidden, torch.finfo(weights.dtype).min)
        weights = weights.softmax(-1, dtype=torch.float32)
        if hasattr(module, "layer_idx"):
            sums.append(weights.sum(-2)[0].unflatten(0, (-1, groups)).mean(1))
        return (weights @ v.repeat_interleave(groups, 1)).transpose(1, 2).contiguous(), None

    AttentionInterface.register("l_by_l", attend)
    AttentionMaskInterface.register("l_by_l", ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
    text = subject.model.config.get_text_config(decoder=True)
    text._attn_implementation = "l_by_l"
    cache = subject.native_cache()
    subject.prefill(cache)
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

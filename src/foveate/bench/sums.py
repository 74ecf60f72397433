"""The case `sums`: column sums over all rows of a prompt, beside attention and the whole matrix.

Times are taken in one process, in turns. Memory is that of a fresh process per variant: how far its
resident set rises above what it holds before the work (`VmHWM` after, minus `VmRSS` before).
"""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from foveate.bench.cases import CLOCKS, milliseconds, summary, turned
from foveate.bench.result import Spread
from foveate.errors import CacheError
from foveate.kernels.column_stats import column_stats

ATTENTION, SUMS, MATRIX = "causal attention", "column sums", "whole matrix and its sums"


@dataclass(frozen=True)
class SumsSetting:
    """One layer and the lengths of its prompts."""

    tokens: tuple[int, ...] = (2048, 4096, 8192)
    heads: int = 16
    kv_heads: int = 4
    width: int = 64
    seed: int = 20260
    device: str = "cpu"
    dtype: str = "float32"
    rounds: int = 5
    clock: str = "wall"

    def to_dict(self) -> dict[str, Any]:
        """Return the setting as plain values."""
        return {**asdict(self), "tokens": list(self.tokens)}


def works(setting: SumsSetting, tokens: int) -> dict[str, Callable[[], Tensor]]:
    """Return what is timed, by name, all on the same queries, keys and values."""
    generator = torch.Generator().manual_seed(setting.seed)
    make = partial(torch.randn, generator=generator)
    dtype, width = getattr(torch, setting.dtype), setting.width
    queries = make(1, setting.heads, tokens, width).to(dtype)
    keys, values = make(2, 1, setting.kv_heads, tokens, width).to(dtype)
    rows = torch.arange(tokens)[None]
    return {
        ATTENTION: partial(
            scaled_dot_product_attention, queries, keys, values, is_causal=True, enable_gqa=True
        ),
        SUMS: partial(column_stats, queries, keys, scaling=width**-0.5, rows=rows, group=True),
        MATRIX: partial(matrix_sums, queries, keys, width**-0.5),
    }


def matrix_sums(queries: Tensor, keys: Tensor, scaling: float) -> Tensor:
    """Return the column sums of group means as eager attention lets one take them."""
    (B, H), Hq, T = keys.shape[:2], queries.shape[1], queries.shape[2]
    logits = queries @ keys.repeat_interleave(Hq // H, 1).transpose(-1, -2)
    hidden = torch.ones(T, T, dtype=torch.bool).triu(1)
    p = logits.mul_(scaling).masked_fill_(hidden, -torch.inf).softmax(-1, dtype=torch.float32)
    return p.sum(2).view(B, H, -1, T).mean(2)


def measure_sums(setting: SumsSetting, tick: Callable[[str], None]) -> dict[str, Any]:
    """Return times, ratios and extra memory per length; `tick` hears of every finished round."""
    found: dict[str, Any] = {}
    for tokens in setting.tokens:
        name = f"{tokens:,} tokens"
        with torch.no_grad():
            found[name] = _timed(setting, works(setting, tokens), partial(tick, name))
        found[name]["extra_bytes"] = {
            variant: extra_in_fresh_process(setting, tokens, variant)
            for variant in (ATTENTION, SUMS, MATRIX)
        }
    return found


def _timed(
    setting: SumsSetting, work: dict[str, Callable[[], Tensor]], tick: Callable[[], None]
) -> dict[str, Any]:
    torch.testing.assert_close(work[SUMS](), work[MATRIX](), rtol=1e-3, atol=1e-3)
    times: dict[str, list[float]] = {name: [] for name in work}
    for number in range(setting.rounds):
        for name in turned(list(work), number):
            times[name].append(milliseconds(work[name], setting.device, CLOCKS[setting.clock]))
        tick()
    return summary(times, [(SUMS, ATTENTION), (MATRIX, ATTENTION), (SUMS, MATRIX)])


def extra_in_fresh_process(setting: SumsSetting, tokens: int, variant: str) -> int:
    """Return by how many bytes a process grows, at most, while it does one variant's work."""
    code = f"from foveate.bench.sums import *; print(extra({setting!r}, {tokens}, {variant!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if done.returncode != 0:
        raise CacheError(f"the memory of {variant} could not be measured:\n{done.stderr[-2000:]}")
    return int(done.stdout)


def extra(setting: SumsSetting, tokens: int, variant: str) -> int:
    """Return by how many bytes this process grows, at most, while it does one variant's work."""
    with torch.no_grad():
        works(setting, 64)[variant]()  # threads and libraries are no memory of the work
        work = works(setting, tokens)[variant]
        Path("/proc/self/clear_refs").write_text("5")  # the highest mark starts anew
        before = resident("VmRSS")
        work()
    return max(0, resident("VmHWM") - before)


def resident(name: str) -> int:
    """Return how many bytes of this process are in memory, now or at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def sums_table(cases: dict[str, Any], clock: str) -> dict[str, Any]:
    """Return ratios and memory as columns and rows of text, for documents."""
    rows = [
        [
            case,
            *(_ratio(result, over) for over in (SUMS, MATRIX)),
            *(f"{result['extra_bytes'][name] / 2**20:,.0f} MiB" for name in (SUMS, MATRIX)),
        ]
        for case, result in cases.items()
    ]
    heads = [f"{name}, {clock} time / attention" for name in (SUMS, MATRIX)]
    return {
        "columns": ["prompt", *heads, f"{SUMS}, memory", f"{MATRIX}, memory"],
        "rows": rows,
    }


def _ratio(result: dict[str, Any], over: str) -> str:
    ratio = Spread(**result["ratios"][f"{over} / {ATTENTION}"])
    return f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"

"""Prefill with scores over all rows, against the whole L x L matrix: each in a process of its own.

The eager variant is H2O as the papers' programs run it: probabilities of all rows are in memory at
once, summed over rows, and the cache is cut to the heavy hitters and the newest tokens.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import foveate
from foveate.bench.memory import growth, in_fresh_process
from foveate.bench.model import Prompted, Size, build, sized
from foveate.bench.subject import Cases, Chart, Line, Panel, Result, Table, Tick
from foveate.bench.timing import CLOCKS, check_setting, milliseconds, summary

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
    dtype: str = "float32"
    clock: str = "wall"

    def __post_init__(self) -> None:
        check_setting(self.device, self.dtype, self.clock)
        foveate.h2o(keep=self.keep)  # raises for a share that is none

    def to_dict(self) -> dict[str, Any]:
        """Return the setting as plain values."""
        return asdict(self)


def rows_setting(device: str = "cpu", kv_heads: int = SIZE.kv_heads, **options: Any) -> RowsSetting:
    """Return the setting for a device; options are fields of it."""
    return RowsSetting(sized(SIZE, kv_heads), device=device, **options)


def measure_rows(setting: RowsSetting, tick: Tick) -> Cases:
    """Return times, peaks and kept tokens of all variants; `tick` hears of every finished one."""
    told: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for variant in VARIANTS:
            words = {**setting.to_dict(), "variant": variant, "folder": folder}
            told[variant] = in_fresh_process("rows", words)
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


def rows_table(result: Result) -> Table:
    """Return times and memory of every variant as columns and rows of text, for documents."""
    rows = []
    for case, numbers in result["cases"].items():
        for variant in VARIANTS:
            memory = f"{numbers['extra_bytes'][variant] / 2**20:,.0f} MiB"
            rows.append([case, variant, f"{_ratio(numbers, variant):.2f}", memory])
    clock = result["setting"]["clock"]
    return {"columns": ["prompt", "prefill", f"{clock} time / full cache", "memory"], "rows": rows}


def _ratio(numbers: dict[str, Any], variant: str) -> float:
    return numbers["ratios"].get(f"{variant} / {FULL}", {"median": 1.0})["median"]


def rows_chart(result: Result) -> Chart:
    """Return time and memory, one row per variant."""
    ((case, numbers),) = result["cases"].items()
    places = tuple(float(i) for i in range(len(VARIANTS)))
    ratios = tuple(_ratio(numbers, variant) for variant in VARIANTS)
    memory = tuple(numbers["extra_bytes"][variant] / 2**20 for variant in VARIANTS)
    times = (Line("prefill", ratios, places),)
    peaks = (Line("prefill", memory, places),)
    return Chart(
        f"Prefill of {case} with scores over all rows",
        (
            Panel("time", "time / full cache", "", times, names=VARIANTS, log="x"),
            Panel("memory", "MiB over the loaded model", "", peaks, names=VARIANTS, log="x"),
        ),
    )


def agreement(ours: list[Tensor], eager: list[Tensor]) -> float:
    """Return the share of kept tokens that both sides keep."""
    same = sum(int((a & b).sum()) for a, b in zip(ours, eager, strict=True))
    return same / sum(int(a.sum()) for a in ours)


def run(words: dict[str, Any]) -> dict[str, Any]:
    """Return one variant's times, and by how many bytes its prefills made the process grow."""
    device, clock = words["device"], CLOCKS[words["clock"]]
    size = Size(**{**words["size"], "visual": tuple(words["size"]["visual"])})
    dtype = getattr(torch, words["dtype"])
    prompted = build(size, words["seed"], device, dtype)
    small = build(Size(layers=1, visual=(4, 4)), 1, device, dtype)
    prefill = {
        FULL: native,
        "h2o": compressing(foveate.h2o(keep=words["keep"], every=0)),
        "lookm": compressing(foveate.lookm(keep=words["keep"])),
        EAGER: lambda prompted: eager(prompted, words["keep"]),
    }[words["variant"]]
    spent: list[float] = []
    kept: list[list[Tensor]] = [[]]

    def once() -> None:
        kept[0] = prefill(prompted)

    def rounds() -> None:
        spent.extend(milliseconds(once, device, clock) for _ in range(words["rounds"] + 1))

    prefill(small)
    extra = growth(rounds, device)
    torch.save([x.cpu() for x in kept[0]], Path(words["folder"]) / f"{words['variant']}.pt")
    return {"milliseconds": spent[1:], "extra_bytes": extra}


def native(prompted: Prompted) -> list[Tensor]:
    """Prefill the native cache; nothing is chosen."""
    prompted.prefill(prompted.native_cache())
    return []


def compressing(method: foveate.Method) -> Callable[[Prompted], list[Tensor]]:
    """Return a prefill into a compressed cache, which says what every layer keeps, [H, T]."""

    def prefill(prompted: Prompted) -> list[Tensor]:
        cache = foveate.CompressedCache(prompted.model, method)
        prompted.prefill(cache)
        report, T = cache.report(), prompted.size.tokens
        kept = []
        for layer in report.layers:
            mask = torch.zeros(prompted.size.kv_heads, T, dtype=torch.bool)
            for head in range(prompted.size.kv_heads):
                mask[head, report.kept(layer.layer, 0, head)] = True
            kept.append(mask)
        return kept

    return prefill


def eager(prompted: Prompted, keep: float) -> list[Tensor]:
    """Prefill with the whole matrix of every layer, sum its columns, and cut the cache."""
    cache = prompted.native_cache()
    sums = prompted.prefill_with_matrices(cache)
    total = round(keep * prompted.size.tokens * len(sums))
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

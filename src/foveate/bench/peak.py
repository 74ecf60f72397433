"""The subject `peak`: bytes of keys and values after every layer, and the peak of the process.

Ours lets go of what no later layer can bring back as soon as a layer is scored. Two-pass is the
same method with `stream=False`, so that everything is held until the last layer.
Every variant runs in a process of its own.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

import foveate
from foveate.bench.memory import growth, in_fresh_process
from foveate.bench.model import Prompted, Size, build, sized
from foveate.bench.subject import Cases, Chart, Goal, Line, Panel, Result, Table, Tick
from foveate.bench.timing import check_setting, default_dtype
from foveate.errors import CacheError
from foveate.hf.layer import CompressedLayer
from foveate.hf.measure import native_bytes

FULL, TWO, OURS = "full cache", "two-pass", "bounded"
SMALL = Size(layers=16, hidden=512, heads=8, kv_heads=8)
LARGE = Size(layers=28, hidden=1536, heads=12, kv_heads=2, visual=(176, 176), inner=8960)
SLACK = 0.5  # of the final size, over final size and one layer: what AirCache may need at most


@dataclass(frozen=True)
class PeakSetting:
    """What is run: each preset twice, and the full cache once."""

    size: Size = SMALL
    presets: tuple[str, ...] = ("aircache", "prefixkv", "vlcache", "cake", "snapkv")
    keep: float = 0.1
    seed: int = 20260
    device: str = "cpu"
    dtype: str = "float32"
    clock: str = "wall"

    def __post_init__(self) -> None:
        check_setting(self.device, self.dtype, self.clock)
        for name in self.presets:
            foveate.method(name, keep=self.keep)

    def to_dict(self) -> dict[str, Any]:
        """Return the setting as plain values."""
        return {**asdict(self), "presets": list(self.presets)}


def peak_setting(device: str = "cpu", kv_heads: int | None = None, **options: Any) -> PeakSetting:
    """Return the setting for a device; options are fields of it."""
    size = SMALL if device == "cpu" else LARGE
    options = {"dtype": default_dtype(device), **options}
    size = sized(size, size.kv_heads if kv_heads is None else kv_heads)
    return PeakSetting(size, device=device, **options)


def measure_peak(setting: PeakSetting, tick: Tick) -> Cases:
    """Return the curves of every preset; `tick` hears of every finished process."""
    full = _told(setting, FULL, FULL)
    tick(FULL)
    found = {}
    for name in setting.presets:
        told = {FULL: full}
        for variant in (TWO, OURS):
            told[variant] = _told(setting, name, variant)
            tick(f"{name}, {variant}")
        if told[TWO]["kept"] != told[OURS]["kept"]:
            raise CacheError(
                f"{name} keeps other tokens when it trims on the way than in two passes, so that "
                "its memory is that of another result; nothing is measured"
            )
        found[name] = {
            "layer": full["curve"][0],
            "final": told[OURS]["final"],
            "curve": {variant: one["curve"] for variant, one in told.items()},
            "most": {variant: one["most"] for variant, one in told.items()},
            "process": {variant: one["process"] for variant, one in told.items()},
        }
    return found


def _told(setting: PeakSetting, name: str, variant: str) -> Any:
    return in_fresh_process("peak", {**setting.to_dict(), "name": name, "variant": variant})


def run(words: dict[str, Any]) -> dict[str, Any]:
    """Return bytes after every layer, at the end and at most, and what was kept, as a hash."""
    size = Size(**{**words["size"], "visual": tuple(words["size"]["visual"])})
    place = (words["seed"], words["device"], getattr(torch, words["dtype"]))
    small = build(replace(size, layers=2, visual=(8, 8)), *place)
    small.prefill(_cache(small, words))  # threads and libraries are no memory of the work
    prompted = build(size, *place)
    cache = _cache(prompted, words)
    curve: list[int] = []

    def work() -> None:
        with noted(prompted, cache, curve):
            prompted.prefill(cache)

    process = growth(work, words["device"])
    told = {"curve": curve, "final": held(cache), "process": process}
    if words["variant"] == FULL:
        return {**told, "most": max(curve), "kept": None}
    report = cache.report()
    return {**told, "most": report.bytes_peak, "kept": _kept(report, size)}


def _cache(prompted: Prompted, words: dict[str, Any]) -> Any:
    """Return the cache of a variant."""
    if words["variant"] == FULL:
        return prompted.native_cache()
    method = foveate.method(words["name"], keep=words["keep"])
    return foveate.CompressedCache(prompted.model, method, stream=words["variant"] == OURS)


@contextmanager
def noted(prompted: Prompted, cache: Any, curve: list[int]) -> Iterator[None]:
    """Add to a curve the bytes that a cache holds after every decoder layer."""
    hooks = [
        layer.register_forward_hook(lambda *_: curve.append(held(cache)))
        for layer in prompted.layers
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def held(cache: Any) -> int:
    """Return the bytes of keys and values that a cache holds now."""
    return sum(
        layer.nbytes if isinstance(layer, CompressedLayer) else native_bytes(layer)
        for layer in cache.layers
    )


def _kept(report: foveate.CacheReport, size: Size) -> str:
    """Return a hash of the positions that every layer and head keeps."""
    kept = hashlib.sha256()
    for layer in report.layers:
        for head in range(size.kv_heads):
            kept.update(repr(report.kept(layer.layer, 0, head).tolist()).encode())
    return kept.hexdigest()


def over(numbers: dict[str, Any], variant: str) -> float:
    """Return how far the most that was held is over final size and one layer, in final sizes."""
    return (numbers["most"][variant] - numbers["layer"] - numbers["final"]) / numbers["final"]


def peak_goals(result: Result) -> list[Goal]:
    """Return how far ours rises over final size and one layer."""
    return [
        Goal(f"{name}: peak over final size and one layer", over(numbers, OURS), SLACK)
        for name, numbers in result["cases"].items()
    ]


def peak_table(result: Result) -> Table:
    """Return a row per preset and variant, all text, for documents."""
    rows = []
    for goal, (name, numbers) in zip(peak_goals(result), result["cases"].items(), strict=True):
        for variant in (TWO, OURS):
            most = numbers["most"][variant]
            rows.append(
                [
                    name,
                    variant,
                    _mib(most),
                    f"{most / numbers['most'][FULL]:.2f}",
                    _mib(numbers["final"]),
                    f"{over(numbers, variant):+.0%} of final",
                    str(goal) if variant == OURS else "",
                    _mib(numbers["process"][variant]),
                ]
            )
    columns = ["preset", "prefill", "most held", "/ full cache", "final"]
    return {
        "columns": [*columns, "over final and one layer", "goal", "process grows by"],
        "rows": rows,
    }


def _mib(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB"


def peak_chart(result: Result) -> Chart:
    """Return the bytes held after every layer, one panel per preset."""
    panels: list[Panel] = []
    for name, numbers in result["cases"].items():
        lines = []
        for variant in (FULL, TWO, OURS):
            curve = tuple(count / 2**20 for count in numbers["curve"][variant])
            places = tuple(float(i) for i in range(1, len(curve) + 1))
            lines.append(Line(variant, places, curve, dashed=variant == FULL))
        up = "" if panels else "MiB of keys and values"
        rules = {"final size": numbers["final"] / 2**20}
        panels.append(Panel(name, "layers read", up, tuple(lines), rules=rules))
    return Chart("Held while a prompt is read", tuple(panels))

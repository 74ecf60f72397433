"""The subject `decode`: time of one step over the length of what is kept.

Every storage stands beside a native cache of as many bytes. Dense and static caches hold what
AirCache keeps. A ragged one holds what heads of their own lengths keep, and so does a padded one:
the queries of the model's heads are made unequally sharp, for random weights alone give heads that
want alike.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import torch

import foveate
from foveate.bench.compiled import ROUNDS, measure_generate
from foveate.bench.model import Prompted, Size, build, sized
from foveate.bench.result import Spread
from foveate.bench.subject import Cases, Chart, Goal, Line, Panel, Result, Table, Tick
from foveate.bench.timing import (
    CLOCKS,
    Times,
    check_setting,
    default_dtype,
    milliseconds,
    shuffled,
    summary,
)
from foveate.errors import CacheError
from foveate.hf.storage import STORAGES

FULL, NATIVE = "full cache", "native, as many bytes"
DENSE, STATIC, RAGGED, PADDED = "dense", "static", "ragged", "ragged heads, padded"
EVEN, UNEVEN = "aircache", "mixkv+adakv"
OURS = {  # variant: method and storage
    DENSE: (EVEN, "dense"),
    STATIC: (EVEN, "static"),
    RAGGED: (UNEVEN, "ragged"),
    PADDED: (UNEVEN, "dense"),
}
GENERATE = "generate"
LIMITS = {DENSE: 1.05, RAGGED: 1.15}  # of the native cache of as many bytes
LARGE = Size(layers=28, hidden=1536, heads=12, kv_heads=2, visual=(176, 176), inner=8960)


@dataclass(frozen=True)
class DecodeSetting:
    """What is run; `steps` are decode steps in every round, `shares` what is kept of the image."""

    size: Size = field(default_factory=Size)
    shares: tuple[float, ...] = (0.5, 0.1, 0.05, 0.01)
    seed: int = 20260
    device: str = "cpu"
    dtype: str = "float32"
    rounds: int = 7
    steps: int = 16
    clock: str = "wall"
    backend: str = "inductor"  # of torch.compile, for `generate`

    def __post_init__(self) -> None:
        check_setting(self.device, self.dtype, self.clock)
        for share in self.shares:
            chosen(EVEN, share)  # raises for a share that is none

    def to_dict(self) -> dict[str, Any]:
        """Return the setting as plain values."""
        return {**asdict(self), "shares": list(self.shares)}


def decode_setting(
    device: str = "cpu",
    keep: Sequence[float] = DecodeSetting.shares,
    kv_heads: int | None = None,
    **options: Any,
) -> DecodeSetting:
    """Return the setting for a device; options are fields of it."""
    size = Size() if device == "cpu" else LARGE
    options = {"dtype": default_dtype(device), **options}
    size = sized(size, size.kv_heads if kv_heads is None else kv_heads)
    return DecodeSetting(size, tuple(keep), device=device, **options)


def chosen(name: str, share: float) -> foveate.Method:
    """Return the method of that name that keeps a share of the visual tokens, and all text."""
    scope = {} if name == EVEN else {"scope": "visual"}
    return foveate.method(name, keep=share, **scope)


def variants() -> list[str]:
    """Return the variants whose storage a cache can have."""
    return [name for name, (_, storage) in OURS.items() if storage in STORAGES]


def measure_decode(setting: DecodeSetting, tick: Tick) -> Cases:
    """Return times of a step, ratios and bytes per share; `tick` hears of every finished round."""
    dtype = getattr(torch, setting.dtype)
    prompted = build(setting.size, setting.seed, setting.device, dtype)
    with torch.no_grad():
        sharpen(prompted)
        full = prompted.native_cache()
        prompted.prefill(full)
        found = {
            percent(share): _share(prompted, full, share, setting, tick) for share in setting.shares
        }
    share = sorted(setting.shares)[len(setting.shares) // 2]
    name = f"{percent(share)}, {GENERATE}"
    found[name] = measure_generate(prompted, chosen(EVEN, share), setting, partial(tick, name))
    return found


def decode_ticks(setting: DecodeSetting) -> int:
    """Return how many rounds there are in all."""
    return len(setting.shares) * (setting.rounds + 1) + min(ROUNDS, setting.rounds) + 1


def sharpen(prompted: Prompted) -> None:
    """Let the heads of every group attend more and more sharply, from half to four times."""
    size = prompted.size
    width, group = size.hidden // size.heads, size.heads // size.kv_heads
    factors = torch.logspace(-1, 2, size.kv_heads, base=2).repeat_interleave(group)
    for name, parameter in prompted.model.named_parameters():
        if "q_proj" in name:
            factor = factors.repeat_interleave(width).to(parameter)
            parameter.mul_(factor if parameter.ndim == 1 else factor[:, None])


def percent(share: float) -> str:
    """Return a share as people write it.

    >>> percent(0.05)
    '5 %'
    """
    return f"{100 * share:g} %"


def _share(
    prompted: Prompted, full: Any, share: float, setting: DecodeSetting, tick: Tick
) -> dict[str, Any]:
    """Return the numbers of one share of kept tokens."""
    caches: dict[str, Any] = {FULL: full}
    kept = {FULL: float(prompted.size.tokens)}
    longest, stored = dict(kept), {FULL: 0}
    for name in variants():
        method, storage = OURS[name]
        caches[name] = foveate.CompressedCache(
            prompted.model, chosen(method, share), storage=storage
        )
        prompted.prefill(caches[name])
        report = caches[name].report()
        _check_is_compressed(report)
        stored[FULL], stored[name] = report.bytes_full, report.bytes_stored
        kept[name], longest[name] = _lengths(report, prompted.size)
    kept[NATIVE] = longest[NATIVE] = float(round(kept[DENSE]))
    caches[NATIVE] = prompted.shortened(full, round(kept[DENSE]))
    stored[NATIVE] = round(stored[FULL] * kept[NATIVE] / kept[FULL])
    times = _timed(prompted, caches, setting, lambda: tick(f"{percent(share)} kept"))
    ours = [name for name in caches if name not in (FULL, NATIVE)]
    pairs = [(name, NATIVE) for name in ours] + [(name, FULL) for name in [*ours, NATIVE]]
    if RAGGED in ours:
        pairs.append((RAGGED, PADDED))
    return {**summary(times, pairs), "kept": kept, "longest": longest, "bytes_stored": stored}


def _lengths(report: foveate.CacheReport, size: Size) -> tuple[float, float]:
    """Return how many tokens a head holds on average, and at most."""
    heads = range(size.kv_heads)
    counts = [len(report.kept(x.layer, 0, head)) for x in report.layers for head in heads]
    return sum(counts) / len(counts), float(max(counts))


def _timed(
    prompted: Prompted, caches: dict[str, Any], setting: DecodeSetting, tick: Callable[[], None]
) -> Times:
    """Return the median time of a step per round, for each cache; round -1 warms up."""
    times: Times = {name: [] for name in caches}
    for number in range(-1, setting.rounds):
        for name, spent in _round(prompted, copy.deepcopy(caches), setting, number).items():
            if number >= 0:
                times[name].append(Spread.of(spent).median)
        tick()
    return times


def _round(
    prompted: Prompted, caches: dict[str, Any], setting: DecodeSetting, number: int
) -> Times:
    """Return the times of all steps; every cache makes one step before any makes the next."""
    spent: Times = {name: [] for name in caches}
    for index in range(setting.steps):
        for name in shuffled(list(caches), number * setting.steps + index):
            step = partial(prompted.step, caches[name], prompted.size.tokens + index)
            spent[name].append(milliseconds(step, setting.device, CLOCKS[setting.clock]))
    return spent


def _check_is_compressed(report: foveate.CacheReport) -> None:
    if report.bytes_stored >= report.bytes_full:
        raise CacheError(
            f"after prefill {report.bytes_stored:,} of {report.bytes_full:,} bytes are stored, so "
            "that decoding would be that of a full cache; nothing is measured"
        )


def decode_goals(result: Result) -> list[Goal]:
    """Return the ratios to a native cache of as many bytes that have a limit."""
    return [
        Goal(f"{case} kept: {pair}", numbers["ratios"][pair]["median"], limit)
        for case, numbers in result["cases"].items()
        for name, limit in LIMITS.items()
        if (pair := f"{name} / {NATIVE}") in numbers["ratios"]
    ]


def decode_table(result: Result) -> Table:
    """Return a row per share and variant, all text, for documents."""
    goals = {goal.what: str(goal) for goal in decode_goals(result)}
    rows = [
        [case, name, *_cells(numbers, name), goals.get(f"{case} kept: {name} / {NATIVE}", "")]
        for case, numbers in result["cases"].items()
        for name in sorted(numbers["milliseconds"], key=lambda name: name != NATIVE)
        if name != FULL
    ]
    clock = result["setting"]["clock"]
    columns = ["kept", "cache", "tokens per head (longest)", "stored", f"step, {clock} time"]
    return {"columns": [*columns, "/ full cache", "/ native", "goal"], "rows": rows}


def _cells(numbers: dict[str, Any], name: str) -> list[str]:
    """Return what is kept and stored by one variant, its time, and its ratios."""
    ratios, kept = numbers["ratios"], f"{numbers['kept'][name]:,.0f}"
    if "longest" in numbers:
        kept += f" ({numbers['longest'][name]:,.0f})"
    stored = numbers.get("bytes_stored", {}).get(name)
    beside = ratios.get(f"{name} / {NATIVE}")
    return [
        kept,
        "" if stored is None else f"{stored / 2**20:.1f} MiB",
        f"{numbers['milliseconds'][name]['median']:.1f} ms",
        f"{ratios[f'{name} / {FULL}']['median']:.2f}",
        "1" if name == NATIVE else "" if beside is None else str(Spread(**beside)),
    ]


def decode_chart(result: Result) -> Chart:
    """Return the time of a step over the tokens that a head holds on average."""
    cases = [x for x in result["cases"].values() if NATIVE in x["milliseconds"]]
    lines = []
    for name in (NATIVE, *OURS):
        if name in cases[0]["milliseconds"]:
            each = sorted((x["kept"][name], x["milliseconds"][name]) for x in cases)
            x, spreads = zip(*each, strict=True)
            y, low, high = (tuple(s[k] for s in spreads) for k in ("median", "low", "high"))
            lines.append(Line(name, x, y, low, high, dashed=name == NATIVE))
    full = Spread.of([x["milliseconds"][FULL]["median"] for x in cases]).median
    panel = Panel(
        "",
        "tokens that a head holds on average",
        f"milliseconds per step, {result['setting']['clock']} time",
        tuple(lines),
        rules={f"full cache, {result['setting']['size']['visual'][0] ** 2:,} image tokens": full},
        log="x",
    )
    return Chart("One decode step", (panel,))

"""The subject `papers`: grids of the papers' tables, measured here, beside what the papers print.

On a GPU models have their full size, on a processor they are divided as `shapes.scaled` says.
Every point reads its prompts into a full cache, into each compressed one, and into a full one
again; then all caches decode in turns, a block of steps each. A ratio that bytes alone would give
stands beside each one measured.
"""

import inspect
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch

import foveate
from foveate.bench import roofline
from foveate.bench.memory import growth
from foveate.bench.peak import held
from foveate.bench.published import (
    BYTES,
    DECODE,
    FULL,
    GRIDS,
    PEAK,
    PREFILL,
    RATE,
    TOTAL,
    Grid,
    Point,
    Variant,
)
from foveate.bench.result import Spread
from foveate.bench.shapes import SHAPES, Batched, bytes_of_weights, prompts, random_model, scaled
from foveate.bench.subject import Cases, Tick
from foveate.bench.timing import CLOCKS, check_setting, default_dtype, milliseconds, shuffled
from foveate.errors import InputError, nearest

QUANTITIES = (PREFILL, DECODE, RATE, BYTES, TOTAL, PEAK)
Times = dict[str, list[float]]  # seconds, by variant


@dataclass(frozen=True)
class PapersSetting:
    """What is run; `tokens` chooses prompts by the papers' lengths, all if empty."""

    grids: tuple[str, ...] = tuple(GRIDS)
    tokens: tuple[int, ...] = ()
    by: int = 8
    rounds: int = 8
    seed: int = 20260
    device: str = "cpu"
    dtype: str = "float32"
    clock: str = "wall"

    def __post_init__(self) -> None:
        check_setting(self.device, self.dtype, self.clock)
        for name in self.grids:
            if name not in GRIDS:
                raise InputError(f"--grids {name!r} is not known; {nearest(name, GRIDS)}")
            scaled(SHAPES[GRIDS[name].model], self.by)
        if not any(self.points(name) for name in self.grids):
            lengths = sorted({point.prompt for name in self.grids for point in GRIDS[name].points})
            raise InputError(
                f"--tokens {', '.join(map(str, self.tokens))} is no length of "
                f"{', '.join(self.grids)}; choose of {', '.join(map(str, lengths))}"
            )

    def points(self, name: str) -> list[Point]:
        """Return the points of a grid that are measured."""
        return [x for x in GRIDS[name].points if not self.tokens or x.prompt in self.tokens]

    def to_dict(self) -> dict[str, Any]:
        """Return the setting as plain values, with the rule by which models are divided."""
        rule = " ".join((inspect.getdoc(scaled) or "").split()) if self.by > 1 else "full size"
        lists = {"grids": list(self.grids), "tokens": list(self.tokens)}
        return {**asdict(self), **lists, "rule": rule}


def papers_setting(device: str = "cpu", **options: Any) -> PapersSetting:
    """Return the setting for a device; options are fields of it."""
    options = {"dtype": default_dtype(device), "by": 8 if device == "cpu" else 1, **options}
    return PapersSetting(device=device, **options)


def papers_ticks(setting: PapersSetting) -> int:
    """Return how many points are measured."""
    return sum(len(setting.points(name)) for name in setting.grids)


def measure_papers(setting: PapersSetting, tick: Tick) -> Cases:
    """Return ratios of every point, the papers' and the roofline's; `tick` hears of each point."""
    found: dict[str, Any] = {}
    for name in setting.grids:
        if not (points := setting.points(name)):
            continue
        shape = scaled(SHAPES[GRIDS[name].model], setting.by)
        dtype = getattr(torch, setting.dtype)
        with torch.no_grad():
            model = random_model(shape, setting.seed, setting.device, dtype)
            _warm(model, GRIDS[name], setting)
            for point in points:
                case = f"{name}: {point.batch} x {point.prompt:,}"
                found[case] = _point(model, name, point, setting)
                tick(case)
    return found


def _warm(model: Any, grid: Grid, setting: PapersSetting) -> None:
    """Let every variant read and write a little, so that no library is loaded while timing."""
    batched = prompts(model, 1, 256, setting.seed)
    for cache in _caches(batched, grid.variants).values():
        batched.prefill(cache)
        batched.step(cache, 256)


def _caches(batched: Batched, variants: Sequence[Variant]) -> dict[str, Any]:
    """Return an empty cache of every variant, the full one among them."""
    ours = {
        variant.name: foveate.CompressedCache(
            batched.model,
            foveate.method(variant.method, keep=variant.keep),
            visual_mask=batched.visual,
            storage="auto",
        )
        for variant in variants
    }
    return {FULL: batched.native_cache(), **ours}


def _point(model: Any, name: str, point: Point, setting: PapersSetting) -> dict[str, Any]:
    """Return the numbers of one point, or why there are none."""
    grid = GRIDS[name]
    length, steps = point.prompt // setting.by, grid.steps // setting.by
    told = {
        "grid": name,
        "source": grid.source,
        "notes": grid.notes,
        "of_paper": {"batch": point.batch, "prompt": point.prompt, "steps": grid.steps},
        "measured": {"batch": point.batch, "prompt": length, "steps": steps},
    }
    batched = prompts(model, point.batch, length, setting.seed)
    try:
        taken = _taken(batched, grid.variants, steps, setting)
    except torch.OutOfMemoryError as error:
        torch.cuda.empty_cache()
        return {**told, "missing": str(error).splitlines()[0]}
    weights = bytes_of_weights(model)
    most = round(weights + taken.held[FULL])
    roof = roofline.measured(setting.device, setting.dtype, most)
    return {
        **told,
        **taken.to_dict(point.batch),
        "bytes_of_weights": weights,
        "bandwidth": roof.to_dict(),
        "least_milliseconds": {x: roof.milliseconds(weights, n) for x, n in taken.held.items()},
        "ratios": {variant.name: taken.ratios(variant) for variant in grid.variants},
        "roofline": {
            x.name: roofline.predicted(weights, taken.held[x.name], taken.held[x.over])
            for x in grid.variants
        },
        "paper": {
            x.name: {q: r for q in QUANTITIES if (r := point.ratio(q, x)) is not None}
            for x in grid.variants
        },
    }


@dataclass(frozen=True)
class Taken:
    """What was measured at a point, by variant: seconds, and bytes of keys and values."""

    prefill: Times
    step: Times  # a number for each block of steps
    steps: int
    held: dict[str, float]  # mean of those before and after decoding
    peaks: dict[str, int]  # that memory rises by in prefill; on a GPU alone

    def total(self, name: str) -> float:
        """Return the seconds of a whole run."""
        return statistics.mean(self.prefill[name]) + self.steps * statistics.mean(self.step[name])

    def ratios(self, variant: Variant) -> dict[str, Any]:
        """Return a variant's numbers over those of what it is compared with."""
        name, over = variant.name, variant.over
        step = [a / b for a, b in zip(self.step[name], self.step[over], strict=True)]
        found = {
            PREFILL: [a / b for a in self.prefill[name] for b in self.prefill[over]],
            DECODE: step,
            RATE: [1 / x for x in step],
            BYTES: [self.held[name] / self.held[over]],
            TOTAL: [self.total(name) / self.total(over)],
        }
        if name in self.peaks:
            found[PEAK] = [self.peaks[name] / self.peaks[over]]
        return {quantity: Spread.of(values).to_dict() for quantity, values in found.items()}

    def to_dict(self, batch: int) -> dict[str, Any]:
        """Return times, rates and bytes as plain values."""
        mean = {name: statistics.mean(times) for name, times in self.step.items()}
        return {
            PREFILL: {name: Spread.of(times).to_dict() for name, times in self.prefill.items()},
            DECODE: {name: self.steps * seconds for name, seconds in mean.items()},
            RATE: {name: batch / seconds for name, seconds in mean.items()},
            "bytes": self.held,
            PEAK: self.peaks,
        }


def _taken(
    batched: Batched, variants: Sequence[Variant], steps: int, setting: PapersSetting
) -> Taken:
    """Return what a point takes with every variant; the full cache reads first and last."""
    caches = _caches(batched, variants)
    reading: Times = {}
    peaks: dict[str, int] = {}
    order = [(FULL, batched.native_cache()), *[x for x in caches.items() if x[0] != FULL]]
    for name, cache in [*order, (FULL, caches[FULL])]:
        spent, peak = _read(partial(batched.prefill, cache), setting)
        reading.setdefault(name, []).append(spent)
        if peak is not None:
            peaks[name] = peak
    before = {name: held(cache) for name, cache in caches.items()}
    step = _written(batched, caches, steps, setting)
    mean = {name: (before[name] + held(cache)) / 2 for name, cache in caches.items()}
    return Taken(reading, step, steps, mean, peaks)


def _read(work: Callable[[], None], setting: PapersSetting) -> tuple[float, int | None]:
    """Return how long prompts take to be read, and on a GPU how much memory that takes."""
    spent: list[float] = []

    def timed() -> None:
        spent.append(milliseconds(work, setting.device, CLOCKS[setting.clock]) / 1000)

    if setting.device.startswith("cuda"):
        peak = growth(timed, setting.device)
        return spent[0], peak
    timed()
    return spent[0], None


def _written(batched: Batched, caches: dict[str, Any], steps: int, setting: PapersSetting) -> Times:
    """Return seconds per step of every cache, a number for each block of steps."""
    rounds = min(setting.rounds, steps)
    ends = [steps * number // rounds for number in range(rounds + 1)]
    start = batched.ids.shape[1]
    found: Times = {name: [] for name in caches}
    for number, (begin, end) in enumerate(pairwise(ends)):
        for name in shuffled(list(caches), number):
            places = range(start + begin, start + end)
            work = partial(_steps, partial(batched.step, caches[name]), places)
            spent = milliseconds(work, setting.device, CLOCKS[setting.clock])
            found[name].append(spent / 1000 / len(places))
    return found


def _steps(step: Callable[[int], None], places: range) -> None:
    for place in places:
        step(place)

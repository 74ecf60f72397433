"""The two cases, prefill and decode: every variant in every round, in turning order."""

import copy
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import torch

import foveate
from foveate.bench.result import Spread
from foveate.bench.subject import Size, Subject, build
from foveate.errors import CacheError

CASES = ("prefill", "decode")
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
FULL, OURS, SHORT = "full cache", "AirCache", "native cache of the kept length"
Times = dict[str, list[float]]


@dataclass(frozen=True)
class Setting:
    """What is run; `steps` are decode steps in every round."""

    size: Size = field(default_factory=Size)
    keep: float = 0.1
    seed: int = 20260
    device: str = "cpu"
    dtype: str = "float32"
    rounds: int = 7
    steps: int = 16
    clock: str = "wall"

    def to_dict(self) -> dict[str, Any]:
        """Return the setting as plain values."""
        return asdict(self)


def measure(setting: Setting, tick: Callable[[str], None]) -> dict[str, Any]:
    """Return times in milliseconds and ratios per case; `tick` hears of every finished round."""
    subject = build(setting.size, setting.seed, setting.device, getattr(torch, setting.dtype))
    method = foveate.method("aircache", keep=setting.keep)
    with torch.no_grad():
        return {
            "prefill": _prefill(subject, method, setting, tick),
            "decode": _decode(subject, method, setting, tick),
        }


def _prefill(
    subject: Subject, method: foveate.Method, setting: Setting, tick: Callable[[str], None]
) -> dict[str, Any]:
    makers: dict[str, Callable[[], Any]] = {
        FULL: subject.native_cache,
        OURS: lambda: foveate.CompressedCache(subject.model, method),
    }
    times: Times = {name: [] for name in makers}
    for number in range(-1, setting.rounds):  # round -1 warms up
        for name in turned(list(makers), number):
            cache = makers[name]()
            spent = _spent(partial(subject.prefill, cache), setting)
            if name == OURS:
                _check_is_compressed(cache)
            if number >= 0:
                times[name].append(spent)
        tick("prefill")
    return summary(times, [(OURS, FULL)])


def _decode(
    subject: Subject, method: foveate.Method, setting: Setting, tick: Callable[[str], None]
) -> dict[str, Any]:
    full, ours = subject.native_cache(), foveate.CompressedCache(subject.model, method)
    subject.prefill(full)
    subject.prefill(ours)
    report = ours.report()
    length = round(sum(layer.stored for layer in report.layers) / len(report.layers))
    caches = {FULL: full, OURS: ours, SHORT: subject.shortened(full, length)}
    times: Times = {name: [] for name in caches}
    for number in range(-1, setting.rounds):
        for name in turned(list(caches), number):
            cache = copy.deepcopy(caches[name])
            spent = _steps(subject, cache, setting)
            if number >= 0:
                times[name].append(spent)
        tick("decode")
    found = summary(times, [(OURS, FULL), (OURS, SHORT), (SHORT, FULL)])
    share = {"bytes_full": report.bytes_full, "bytes_stored": report.bytes_stored}
    return {**found, **share, "kept_length": length}


def _steps(subject: Subject, cache: Any, setting: Setting) -> float:
    """Return the median time of one decode step."""
    spent = []
    for index in range(setting.steps):
        position = subject.size.tokens + index
        spent.append(_spent(partial(subject.step, cache, position), setting))
    return Spread.of(spent).median


def _spent(work: Callable[[], Any], setting: Setting) -> float:
    return milliseconds(work, setting.device, CLOCKS[setting.clock])


def milliseconds(work: Callable[[], Any], device: str, clock: Callable[[], float]) -> float:
    """Return how long a piece of work takes, the device being idle before and after."""
    _wait(device)
    start = clock()
    work()
    _wait(device)
    return 1000 * (clock() - start)


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def turned(names: list[str], number: int) -> list[str]:
    """Return the names with another one in front each round, so that no variant is always first."""
    at = number % len(names)
    return names[at:] + names[:at]


def _check_is_compressed(cache: Any) -> None:
    report = cache.report()
    if report.bytes_stored >= report.bytes_full:
        raise CacheError(
            f"after prefill {report.bytes_stored:,} of {report.bytes_full:,} bytes are stored, so "
            "the time of prefill would not include compression; nothing is measured"
        )


def summary(times: Times, pairs: list[tuple[str, str]]) -> dict[str, Any]:
    """Return the spread of times, and of the ratios taken within each round."""
    ratios = {}
    for over, under in pairs:
        each = [a / b for a, b in zip(times[over], times[under], strict=True)]
        ratios[f"{over} / {under}"] = Spread.of(each)
    return {
        "milliseconds": {name: Spread.of(values).to_dict() for name, values in times.items()},
        "ratios": {name: spread.to_dict() for name, spread in ratios.items()},
    }

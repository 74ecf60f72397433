"""Times taken in turns: every variant in every round, ratios within the round."""

import time
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import torch

from foveate.bench.result import Spread
from foveate.errors import InputError

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
DTYPES = ("float32", "bfloat16", "float16")
Times = dict[str, list[float]]


def check_setting(device: str, dtype: str, clock: str) -> None:
    """Raise `InputError` for a number type or clock that nothing can be measured with."""
    if dtype not in DTYPES:
        raise InputError(f"--dtype {dtype!r} is not known; choose {' or '.join(DTYPES)}")
    if clock not in CLOCKS:
        raise InputError(f"--clock {clock!r} is not known; choose {' or '.join(CLOCKS)}")
    if clock == "cpu" and device != "cpu":
        raise InputError(f"--clock cpu cannot time work on {device}; leave it out")


def default_dtype(device: str) -> str:
    """Return the number type that models run in on a device."""
    return "float32" if device == "cpu" else "bfloat16"


def milliseconds(work: Callable[[], Any], device: str, clock: Callable[[], float]) -> float:
    """Return how long a piece of work takes, the device being idle before and after."""
    wait(device)
    start = clock()
    work()
    wait(device)
    return 1000 * (clock() - start)


def wait(device: str) -> None:
    """Return when the device has nothing left to do."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def shuffled(names: Sequence[str], number: int) -> list[str]:
    """Return the names in an order that depends on the number alone.

    Whatever runs behind a full cache finds the caches of the processor empty, so that no variant
    may always follow the same other one.
    """
    return Random(number).sample(names, len(names))


def ratio(over: list[float], under: list[float]) -> dict[str, Any]:
    """Return the spread of the ratios taken within each round."""
    return Spread.of([a / b for a, b in zip(over, under, strict=True)]).to_dict()


def summary(times: Times, pairs: list[tuple[str, str]]) -> dict[str, Any]:
    """Return the spread of times, and of the ratios taken within each round."""
    return {
        "milliseconds": {name: Spread.of(values).to_dict() for name, values in times.items()},
        "ratios": {f"{a} / {b}": ratio(times[a], times[b]) for a, b in pairs},
    }

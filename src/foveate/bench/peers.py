"""The subject `peers`: the same methods by another library, in an environment of its own.

`peer_worker.py` does the measuring in both environments, each beside the full cache of its own
transformers; the two have other releases, so that ratios to those full caches are compared.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import resources
from typing import Any

import foveate
from foveate.bench.peer_worker import COMPRESSED, FULL, MARK
from foveate.bench.result import Spread
from foveate.bench.shapes import SHAPES, configured, scaled
from foveate.bench.subject import Cases, Chart, Line, Panel, Result, Table, Tick
from foveate.bench.timing import check_setting, default_dtype
from foveate.errors import InputError

OURS, PEER = "foveate", "kvpress"
VARIABLE = "FOVEATE_PEER_PYTHON"
METHODS = {
    "snapkv": "SnapKV",
    "adakv": "AdaKV on SnapKV",
    "expected": "Expected Attention",
    "knorm": "key norms",
}


@dataclass(frozen=True)
class PeersSetting:
    """What is run; `python` is an interpreter whose environment has the other library."""

    python: str = ""
    models: tuple[str, ...] = ("Llama-3-8B", "LLaVA-OneVision-7B", "Qwen2-VL-7B")
    keep: float = 0.1
    batch: int = 8
    prompt: int = 8192
    steps: int = 512
    by: int = 8
    rounds: int = 7
    seed: int = 20260
    device: str = "cpu"
    dtype: str = "float32"
    clock: str = "wall"

    def __post_init__(self) -> None:
        check_setting(self.device, self.dtype, self.clock)
        if self.python and shutil.which(self.python) is None:
            raise InputError(
                f"--peer-python {self.python} cannot be run; give the python of an environment "
                f"with {PEER}, or set {VARIABLE}"
            )
        for name in METHODS:
            foveate.method(name, keep=self.keep)
        for model in self.models:
            scaled(SHAPES[model], self.by)

    def to_dict(self) -> dict[str, Any]:
        """Return the setting as plain values; where the interpreter is, is nobody's business."""
        return {**asdict(self), "models": list(self.models), "python": bool(self.python)}


def peers_setting(
    device: str = "cpu", peer_python: str | None = None, **options: Any
) -> PeersSetting:
    """Return the setting for a device; options are fields of it."""
    python = peer_python or os.environ.get(VARIABLE, "")
    options = {"dtype": default_dtype(device), "by": 8 if device == "cpu" else 1, **options}
    return PeersSetting(python, device=device, **options)


def peers_ticks(setting: PeersSetting) -> int:
    """Return how many pairs of a model and a library are run."""
    return 2 * len(setting.models)


def measure_peers(setting: PeersSetting, tick: Tick) -> Cases:
    """Return a record per model, method and library; `tick` hears of each model and library."""
    found: dict[str, Any] = {}
    for model in setting.models:
        told = {}
        for library, python in ((OURS, sys.executable), (PEER, setting.python)):
            told[library] = _told(python, library, model, setting)
            tick(f"{model}, {library}")
        found[model] = {
            "versions": {library: part.get("versions") for library, part in told.items()},
            "methods": {
                name: {library: _of(part, name) for library, part in told.items()}
                for name in METHODS
            },
        }
    return found


def _told(python: str, library: str, model: str, setting: PeersSetting) -> dict[str, Any]:
    """Return what a worker says of every method, and how it ended."""
    if not python:
        return {"missing": f"not installed; --peer-python or {VARIABLE} names an environment"}
    words = {
        "library": library,
        "model": configured(scaled(SHAPES[model], setting.by)),
        "methods": list(METHODS),
        "prompt": setting.prompt // setting.by,
        "steps": max(setting.steps // setting.by, setting.rounds),
        **{name: getattr(setting, name) for name in ("keep", "batch", "rounds")},
        **{name: getattr(setting, name) for name in ("device", "dtype", "clock", "seed")},
    }
    worker = resources.files("foveate.bench").joinpath("peer_worker.py").read_text()
    surroundings = {**os.environ, "HF_HUB_OFFLINE": "1"}
    if library == PEER:
        surroundings.pop("PYTHONPATH", None)
    done = subprocess.run(
        [python, "-c", worker, json.dumps(words)],
        capture_output=True,
        text=True,
        env=surroundings,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    told: dict[str, Any] = {}
    for line in lines:
        part = json.loads(line.removeprefix(MARK))
        if "method" in part:
            told.setdefault("methods", {})[part.pop("method")] = part
        else:
            told.update(part)
    if "missing" in told:
        told["missing"] = f"not installed: {told['missing']}"
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        told["ended"] = f"the process ended with {done.returncode}: {last[:200]}"
    return told


def _of(part: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the numbers of one method, or why there are none."""
    if "missing" in part:
        return {"missing": part["missing"]}
    numbers = part.get("methods", {}).get(name)
    if numbers is None:
        return {"failed": part.get("ended", "the process ended before it")}
    if "failed" in numbers:
        return {"failed": numbers["failed"][:200]}
    full, step = numbers["step"][FULL], numbers["step"][COMPRESSED]
    return {
        "prefill_seconds": numbers["prefill"],
        "step_milliseconds": {
            name: Spread.of([1000 * x for x in times]).to_dict()
            for name, times in numbers["step"].items()
        },
        "step": Spread.of([a / b for a, b in zip(step, full, strict=True)]).to_dict(),
        "prefill": numbers["prefill"][COMPRESSED] / numbers["prefill"][FULL],
        "bytes_stored": numbers["stored"],
        "bytes_held": numbers["held"],
        "stored": numbers["stored"][COMPRESSED] / numbers["stored"][FULL],
        "held": numbers["held"][COMPRESSED] / numbers["held"][FULL],
    }


def peers_table(result: Result) -> Table:
    """Return a row per model, method and library, all text, for documents."""
    rows = []
    for model, numbers in result["cases"].items():
        for name, libraries in numbers["methods"].items():
            for library, found in libraries.items():
                begin = [model, METHODS[name], library]
                reason = found.get("missing") or found.get("failed")
                if reason:
                    rows.append([*begin, reason, "", "", "", ""])
                    continue
                step = found["step_milliseconds"][COMPRESSED]["median"]
                rows.append(
                    [
                        *begin,
                        f"{found['bytes_stored'][COMPRESSED] / 2**20:.2f} MiB, "
                        f"{found['stored']:.0%} of the full cache",
                        f"{found['held']:.0%}",
                        f"{found['prefill']:.2f}",
                        f"{step:.1f} ms",
                        str(Spread(**found["step"])),
                    ]
                )
    ratios = ["all that is held", "prefill / full cache", "step", "step / full cache"]
    return {"columns": ["model", "method", "library", "keys and values", *ratios], "rows": rows}


def peers_chart(result: Result) -> Chart:
    """Return bytes and times of a step, a row per model and method."""
    pairs = [(model, name) for model in result["cases"] for name in METHODS]
    names = tuple(f"{model}, {METHODS[name]}" for model, name in pairs)

    def panel(title: str, number: Callable[[dict[str, Any]], float]) -> Panel:
        lines = []
        for library in (OURS, PEER):
            points = [
                (number(found), float(row))
                for row, (model, name) in enumerate(pairs)
                if "step" in (found := result["cases"][model]["methods"][name][library])
            ]
            if points:
                x, y = zip(*points, strict=True)
                lines.append(Line(library, x, y))
        return Panel(title, "", "", tuple(lines), names=names, rules={"full cache": 1.0})

    return Chart(
        f"{result['setting']['keep']:.0%} kept, over the full cache of the same environment",
        (
            panel("bytes that are held", lambda found: float(found["held"])),
            panel("time of a step", lambda found: float(found["step"]["median"])),
        ),
    )

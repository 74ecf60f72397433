"""What a measurement leaves behind: JSON with the numbers, the code, the machine, and a table."""

import contextlib
import datetime
import importlib.metadata
import os
import platform
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from foveate.bench.subject import Cases, Result


@dataclass(frozen=True)
class Spread:
    """Median and range of repeated measurements."""

    median: float
    low: float
    high: float
    count: int

    @staticmethod
    def of(values: Sequence[float]) -> "Spread":
        """Return the spread of at least one value."""
        return Spread(statistics.median(values), min(values), max(values), len(values))

    def to_dict(self) -> dict[str, Any]:
        """Return the spread as plain numbers."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


def record(what: str, setting: dict[str, Any], cases: Cases, folder: Path) -> Result:
    """Return everything that somebody needs to judge or repeat the numbers of a subject."""
    return {"what": what, **origin(folder, setting["device"]), "setting": setting, "cases": cases}


def origin(folder: Path, device: str) -> dict[str, Any]:
    """Return which code, versions and machine a result comes from, and of which day it is."""
    return {
        "commit": _git(folder, "describe", "--always", "--dirty", "--abbrev=12"),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
        "versions": versions(),
        "machine": _machine(device),
    }


def _git(folder: Path, *words: str) -> str:
    """Return what git says about the checkout that the folder is tracked in, if it is in one."""
    said = "unknown"
    with contextlib.suppress(OSError):
        for asked in (("ls-files", "."), words):
            done = subprocess.run(["git", *asked], cwd=folder, capture_output=True, text=True)
            said = done.stdout.strip()
            if not said:
                return "unknown"
    return said


def versions() -> dict[str, str]:
    """Return the versions that numbers depend on."""
    names = ("foveate", "torch", "transformers")
    return {"python": platform.python_version()} | {
        name: importlib.metadata.version(name) for name in names
    }


def _machine(device: str) -> dict[str, Any]:
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    described = {
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": load,
    }
    if device.startswith("cuda"):
        described["gpu"] = torch.cuda.get_device_name(device)
    return described

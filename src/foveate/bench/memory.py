"""Memory that a piece of work takes, measured in a process that does nothing else.

On the processor it is how far the resident set rises above what is held before the work (`VmHWM`
after, minus `VmRSS` before); on a GPU, the same of what torch has allocated.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from foveate.errors import CacheError

Words = Mapping[str, Any]


def in_fresh_process(name: str, words: Words) -> Any:
    """Return what `run(words)` of the module `name` of this package returns in its own process."""
    code = f"from foveate.bench.memory import answer; answer({name!r})"
    command = [sys.executable, "-c", code, json.dumps(words)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        what = words.get("variant", name)
        raise CacheError(f"{what} could not be measured:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def answer(name: str) -> None:
    """Write what `run` of a module returns, for the words in the first argument, as JSON."""
    words = json.loads(sys.argv[1])
    with torch.no_grad():
        told = import_module(f"foveate.bench.{name}").run(words)
    sys.stdout.write("\n" + json.dumps(told) + "\n")


def growth(work: Callable[[], Any], device: str) -> int:
    """Return by how many bytes the memory of this process grows, at most, during the work."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    Path("/proc/self/clear_refs").write_text("5")  # the highest mark starts anew
    before = resident("VmRSS")
    work()
    return max(0, resident("VmHWM") - before)


def resident(name: str) -> int:
    """Return how many bytes of this process are in memory, now or at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))

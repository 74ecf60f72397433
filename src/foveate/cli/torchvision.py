"""Whether torchvision can be imported, found out in a process of its own, and the cure if not.

`transformers.utils.is_torchvision_available()` only looks whether the package is there; a build
that does not match torch passes that test and then breaks every image processor.
"""

import subprocess
import sys
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class State:
    """What came of importing torchvision; `detail` is its version or the last line of the error."""

    kind: Literal["works", "missing", "broken"]
    detail: str

    def cure(self, torch_version: str) -> str:
        """Return what to do about it beside this torch, or nothing if it works."""
        match = (
            "the CPU build of torchvision that belongs to it, from the place your torch came from "
            "(a plain install brings the GPU build, which breaks)"
            if torch_version.endswith("+cpu")
            else "the torchvision release that belongs to it: pip install torchvision"
        )
        if self.kind == "missing":
            return f"for processors that need it, install beside torch {torch_version} {match}"
        if self.kind == "broken":
            return (
                f"pip uninstall torchvision; if you need it, install beside torch {torch_version} "
                + match
            )
        return ""


def state(python: str = sys.executable, timeout: float = 120) -> State:
    """Return whether torchvision works in that interpreter."""
    script = "import torchvision; print(torchvision.__version__)"
    try:
        done = subprocess.run(
            [python, "-W", "ignore", "-c", script], capture_output=True, text=True, timeout=timeout
        )
    except subprocess.TimeoutExpired:
        return State("broken", f"the import did not end within {timeout:.0f} s")
    if done.returncode == 0:
        return State("works", done.stdout.strip())
    lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
    if lines[-1].startswith("ModuleNotFoundError") and "'torchvision'" in lines[-1]:
        return State("missing", "not installed")
    return State("broken", lines[-1])

"""No numbers from code whose tests fail."""

import os
import subprocess
import sys
from pathlib import Path

import foveate
from foveate.errors import CacheError, InputError

TESTS = {  # by what is measured: folders, and which of their tests
    # the family that is timed, the cache itself, and AirCache
    "cache": (("tests/cache", "tests/hf", "tests/methods"), "qwen2-vl or cache"),
    "sums": (("tests/kernels",), "column_stats"),
    "rows": (("tests/kernels", "tests/hf/test_presets.py"), "column_stats or qwen2-vl"),
}


def root() -> Path:
    """Return the checkout that this package runs from."""
    folder = Path(foveate.__file__).resolve().parents[2]
    if not (folder / "tests" / "hf").is_dir():
        raise InputError(
            "`foveate bench` runs the tests of what it measures, and this installation has none; "
            "clone the repository and run `make bench` there"
        )
    return folder


def verify(folder: Path, subject: str = "cache") -> None:
    """Run the tests of what is measured, and raise with their output if any fails."""
    names, matching = TESTS[subject]
    folders = [name for name in names if (folder / name).exists()]
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-k", matching, *folders]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=dict(os.environ))
    if done.returncode != 0:
        raise CacheError(
            f"nothing is measured, because the tests fail ({' '.join(command[2:])}):\n"
            + (done.stdout + done.stderr)[-4000:]
        )

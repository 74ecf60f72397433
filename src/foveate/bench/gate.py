"""No numbers from code whose tests fail."""

import os
import subprocess
import sys
from pathlib import Path

import foveate
from foveate.errors import CacheError, InputError

FOLDERS = ("tests/cache", "tests/hf", "tests/methods")
MATCHING = "qwen2-vl or cache"  # the family that is timed, the cache itself, and AirCache


def root() -> Path:
    """Return the checkout that this package runs from."""
    folder = Path(foveate.__file__).resolve().parents[2]
    if not (folder / "tests" / "hf").is_dir():
        raise InputError(
            "`foveate bench` runs the tests of what it measures, and this installation has none; "
            "clone the repository and run `make bench` there"
        )
    return folder


def verify(folder: Path) -> None:
    """Run the tests of the cache and the seam, and raise with their output if any fails."""
    folders = [name for name in FOLDERS if (folder / name).is_dir()]
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-k", MATCHING, *folders]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=dict(os.environ))
    if done.returncode != 0:
        raise CacheError(
            f"nothing is measured, because the tests fail ({' '.join(command[2:])}):\n"
            + (done.stdout + done.stderr)[-4000:]
        )

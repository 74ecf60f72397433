"""No numbers from code whose tests fail."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import foveate
from foveate.errors import CacheError, InputError

# by what is measured: a folder or file, and which of its tests; the family timed is Qwen2-VL
TESTS = {
    "decode": (
        ("tests/cache", ""),
        ("tests/kernels", "ragged or compact"),
        ("tests/hf", "qwen2-vl or cache or ragged or static"),
        ("tests/methods", "aircache or mixkv or adakv"),
    ),
    "prefill": (
        ("tests/kernels", "column_stats or allocate"),
        ("tests/hf/test_presets.py", "qwen2-vl"),
        ("tests/methods", ""),
    ),
    "peak": (
        ("tests/budget", ""),
        ("tests/hf/test_presets.py", "qwen2-vl"),
        ("tests/hf", "memory or stream"),
        ("tests/cache", "ledger"),
    ),
    "sums": (("tests/kernels", "column_stats"),),
    "rows": (("tests/kernels", "column_stats"), ("tests/hf/test_presets.py", "qwen2-vl")),
    "papers": (
        ("tests/cache", ""),
        ("tests/kernels", "ragged or compact"),
        ("tests/hf", "qwen2-vl or cache or ragged or static"),
        ("tests/methods", "aircache or lookm or mixkv or adakv or snapkv"),
    ),
    "peers": (
        ("tests/cache", ""),
        ("tests/kernels", "ragged or compact"),
        ("tests/hf", "qwen2-vl or cache or ragged or static"),
        ("tests/methods", "snapkv or adakv or expected or knorm"),
    ),
    "serve": (("tests/serve", "engine"), ("tests/hf", "joined or ragged")),
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


def verify(folder: Path, subjects: Sequence[str]) -> None:
    """Run the tests of what is measured, and raise with their output if any fails."""
    asked: dict[str, list[str]] = {}  # one run for everything that the same words choose
    for where, matching in dict.fromkeys(pair for name in subjects for pair in TESTS[name]):
        asked.setdefault(matching, []).append(where)
    for matching, places in asked.items():
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-k", matching, *places]
        environment = {"OMP_NUM_THREADS": "1", **os.environ}
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)
        if done.returncode != 0:
            raise CacheError(
                f"nothing is measured, because the tests fail ({' '.join(command[2:])}):\n"
                + (done.stdout + done.stderr)[-4000:]
            )

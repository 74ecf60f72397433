"""Every test runs offline, on one thread, from one seed."""

import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))  # `families`, `gold`, `reference`

import pytest
import torch

# Read as tests, for their docstrings, these would be imported a second time under another name,
# and what they register would be registered twice.
collect_ignore = [
    "decoding.py",
    "families",
    "gold.py",
    "layerwise.py",
    "ragged.py",
    "histories.py",
    "kernels/hopper.py",
    "parallel_worker.py",
    "reference",
    "samples.py",
    "seam.py",
    "shared_heads.py",
    "traces.py",
]

torch.set_num_threads(1)


def pytest_configure(config: pytest.Config) -> None:
    """Have Triton interpret its kernels on the CPU, unless the tests for accelerators are run."""
    if config.getoption("markexpr") != "gpu":
        os.environ["TRITON_INTERPRET"] = "1"  # read when a kernel's module is imported


@pytest.fixture(autouse=True)
def seed() -> int:
    """Fix torch's global generator before each test."""
    torch.manual_seed(20260)
    return 20260

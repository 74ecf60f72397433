"""Every test runs offline, on one thread, from one seed."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
    "alone.py",
    "browsing.py",
    "decoding.py",
    "easels.py",
    "desk.py",
    "engines.py",
    "families",
    "gold.py",
    "layerwise.py",
    "ragged.py",
    "histories.py",
    "kernels/hopper.py",
    "launching.py",
    "painting.py",
    "parallel_worker.py",
    "questions.py",
    "ranks_worker.py",
    "reference",
    "rehearsal.py",
    "samples.py",
    "seam.py",
    "serving.py",
    "shared_heads.py",
    "traces.py",
]

torch.set_num_threads(1)


def pytest_configure(config: pytest.Config) -> None:
    """Have Triton interpret its kernels on the CPU, unless they can be run on a GPU now."""
    if not torch.cuda.is_available() or "not gpu" in config.getoption("markexpr"):
        os.environ["TRITON_INTERPRET"] = "1"  # read when a kernel's module is imported


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let every test that does not choose a storage be run on another one."""
    parser.addoption("--storage", default="dense", help="what caches store in, unless told")


@pytest.fixture(autouse=True)
def storage(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The storage of every cache that is made without naming one."""
    chosen = str(request.config.getoption("--storage"))
    if chosen != "dense":
        from foveate.hf.cache import CompressedCache
        from foveate.hf.session import compress

        for function in (CompressedCache.__init__, compress.__wrapped__):
            monkeypatch.setitem(function.__kwdefaults__, "storage", chosen)
    return chosen


@pytest.fixture(scope="module")  # while it is open, `asyncio.run` cannot be called
def browser() -> Iterator[Any]:
    """A headless browser; tests are skipped where there is none."""
    from browsing import launched

    with launched() as opened:
        yield opened


@pytest.fixture(autouse=True)
def seed() -> int:
    """Fix torch's global generator before each test."""
    torch.manual_seed(20260)
    return 20260

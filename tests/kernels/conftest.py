"""Kernels in Triton are interpreted on the CPU, and run where there is a GPU (`-m gpu`)."""

import os

import pytest
import torch


@pytest.fixture
def gpu() -> torch.device:
    """Return the GPU."""
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU here")
    return torch.device("cuda", torch.cuda.current_device())


@pytest.fixture(params=["cpu", pytest.param("gpu", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Return where a kernel is to run."""
    if request.param == "gpu":
        return request.getfixturevalue("gpu")
    if os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("kernels are compiled in this run")
    return torch.device("cpu")


@pytest.fixture
def memory_is_poisoned():
    """Have torch fill memory that it hands out with NaN, or the largest integer."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.use_deterministic_algorithms(False)

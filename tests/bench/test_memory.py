"""Memory is that of the work, and a process that fails says why."""

import pytest
import torch

from foveate.bench import memory
from foveate.errors import CacheError


def test_growth_is_what_the_work_adds_at_most():
    held = torch.ones(16 << 20)  # what is held before does not count
    assert memory.growth(lambda: None, "cpu") < 8 << 20
    assert 60 << 20 <= memory.growth(lambda: torch.ones(16 << 20), "cpu") < 96 << 20
    assert held.sum() == 16 << 20


def test_a_variant_that_cannot_be_measured_says_why():
    with pytest.raises(CacheError, match=r"nothing could not be measured(.|\n)*KeyError"):
        memory.in_fresh_process("sums", {"tokens": [8], "of": 8, "variant": "nothing"})

"""`compact` in plain torch and in Triton equals its plain-loop twin, bit by bit."""

import inspect
from importlib import import_module
from importlib.util import find_spec

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from foveate.kernels.compact import compact, gather, naive

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
KINDS = [
    "gather",
    pytest.param("fused", marks=pytest.mark.skipif(not find_spec("triton"), reason="no Triton")),
]
LAYOUTS = ["contiguous", "part", "by token", "shared", "odd", "every other"]


@pytest.fixture(params=KINDS)
def kind(request, memory_is_poisoned):
    return import_module(f"foveate.kernels.compact.{request.param}").compact


def entries(layout, B, H, T, D, dtype=torch.float32, device="cpu"):
    """Return random numbers [B, H, T, D] in some layout, NaN around them."""
    longer = torch.full((B, H, T + 5, D), torch.nan, dtype=dtype, device=device)
    wider = torch.full((B, H, T, D + 3), torch.nan, dtype=dtype, device=device)
    held = {
        "contiguous": lambda: torch.empty(B, H, T, D, dtype=dtype, device=device),
        "part": lambda: longer[:, :, 3 : 3 + T],
        "by token": lambda: longer.view(B, T + 5, H, D)[:, 2 : 2 + T].transpose(1, 2),
        "shared": lambda: longer[:1, :, :T].expand(B, -1, -1, -1),
        "odd": lambda: wider[..., 1 : 1 + D],
        "every other": lambda: torch.full_like(longer, torch.nan).repeat(1, 1, 1, 2)[:, :, :T, ::2],
    }[layout]()
    (held[:1] if layout == "shared" else held).copy_(
        torch.randn(1 if layout == "shared" else B, H, T, D)
    )
    return held


def compare(kind, *inputs):
    found, expected = kind(*inputs), naive.compact(*(x.cpu() for x in inputs))
    for new, old in zip(found, expected, strict=True):
        assert new.dtype == old.dtype and new.shape == old.shape and new.is_contiguous()
        assert torch.equal(new.cpu(), old) and new.isfinite().all()


def test_twins_have_the_same_signature():
    expected = inspect.signature(naive.compact)
    assert inspect.signature(compact) == expected == inspect.signature(gather.compact)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_types_and_layouts(kind, layout, dtype, device):
    keys = entries(layout, 2, 3, 11, 7, dtype, device)
    values = entries(layout, 2, 3, 11, 5, dtype, device)
    compare(kind, keys, values, torch.randint(-1, 66, (2, 3, 13), device=device))


@pytest.mark.parametrize("shape", [(0,), (1,), (137,), (2, 0, 3), (2, 1, 5)], ids=str)
def test_any_shape_of_slots(kind, shape, device):
    keys, values = (
        entries("part", 1, 2, 9, 64, device=device),
        entries("odd", 1, 2, 9, 1).to(device),
    )
    for least in (-1, 0):
        compare(kind, keys, values, torch.randint(least, 18, shape, device=device))


def test_nothing_stored(kind, device):
    keys = torch.empty(1, 2, 0, 4, device=device)
    compare(kind, keys, keys, torch.full((1, 2, 3), -1, device=device))


@pytest.mark.gpu
def test_a_gpu_uses_triton(gpu, monkeypatch):
    keys, slots = entries("part", 1, 2, 9, 64, device=gpu), torch.arange(5, device=gpu)
    monkeypatch.setattr(gather, "compact", None)
    compare(compact, keys, keys, slots)


class Largest(TorchDispatchMode):
    """Remembers the most numbers in a tensor that is no view of `held`."""

    def __init__(self, held):
        super().__init__()
        self.held, self.numbers = held.untyped_storage().data_ptr(), 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and out.untyped_storage().data_ptr() != self.held:
            self.numbers = max(self.numbers, out.numel())
        return out


@pytest.mark.parametrize("layout", LAYOUTS)
def test_nothing_is_copied_but_what_is_kept(layout):
    keys = entries(layout, 1, 2, 400, 8)
    with Largest(keys) as largest:
        gather.compact(keys, keys, torch.randint(-1, 800, (30,)))
    assert largest.numbers == 30 * 8

"""Compiles for a Hopper GPU, without one, every kernel that some calls would start.

Run as a program, with the name of a kernel: where Triton interprets, it cannot compile.
"""

import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from triton.backends import nvidia
from triton.backends.compiler import GPUTarget
from triton.runtime import JITFunction, driver

from foveate.kernels.column_stats import fused as column_stats
from foveate.kernels.compact import fused as compact
from foveate.kernels.ragged_attention import fused as ragged_attention

DTYPES = ("float32", "bfloat16", "float16")
Case = Callable[[torch.dtype, int], object]


@dataclass
class Kernel:
    """One compiled kernel: bytes of machine code, of shared memory and of spilled registers."""

    case: str
    name: str
    dtype: str
    width: int
    code: int
    shared: int
    spilled: int
    registers: int


class Hopper:
    """A driver that knows which GPU there would be, and nothing else."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def compiled(call: Callable[[], object]) -> Iterator[Any]:
    """Yield what each start of a kernel compiles to, instead of starting it."""
    run, found = JITFunction.run, []

    def warm_up(self, *args, grid, warmup, **options):
        found.append(run(self, *args, grid=grid, warmup=True, **options))
        return found[-1]

    JITFunction.run = warm_up
    try:
        call()
    finally:
        JITFunction.run = run
    yield from found


def usage(cubin: bytes) -> tuple[int, int]:
    """Return the registers of a thread, and its bytes of stack and local memory: what it spills."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        tool = Path(nvidia.__file__).parent / "bin" / "cuobjdump"
        shown = subprocess.run([tool, "-res-usage", path], capture_output=True, text=True).stdout
    words = dict(word.split(":") for word in shown.split() if word.count(":") == 1)
    return int(words["REG"]), int(words["STACK"]) + int(words["LOCAL"])


def few_queries(dtype: torch.dtype, D: int, q: int = 1, **options: Any) -> None:
    """Decode with a prefix of 16,000 tokens, and heads as Qwen2.5-VL-7B has them."""
    B, H, G, S, t = 1, 4, 7, 16_000, 17
    queries = torch.empty(B, H * G, q, D, dtype=dtype)
    prefix, tail = torch.empty(S, D, dtype=dtype), torch.empty(B, H, t, D, dtype=dtype)
    offsets = torch.arange(H + 1) * (S // H)
    ragged_attention.ragged_attention(
        queries, prefix, prefix, offsets, tail, tail, scaling=0.1, **options
    )


def every_option(dtype: torch.dtype, D: int) -> None:
    """Decode several tokens at once, with everything that can be given."""
    prefix_bias = torch.empty(5, 16_000, dtype=dtype)
    tail_bias = torch.empty(1, 28, 5, 17, dtype=dtype)
    sinks = torch.empty(28, dtype=dtype)
    options = {"softcap": 20.0, "sinks": sinks, "prefix_bias": prefix_bias, "tail_bias": tail_bias}
    few_queries(dtype, D, q=5, **options)


def packing(dtype: torch.dtype, D: int) -> None:
    """Keep 500 tokens of each of 4 heads, out of 4,000."""
    entries, slots = torch.empty(1, 4, 4_000, D, dtype=dtype), torch.zeros(2_000, dtype=torch.long)
    compact.compact(entries, entries, slots)


def scores(dtype: torch.dtype, D: int, **options: Any) -> None:
    """Sum the columns of the last 33 rows of a prompt of 4,000 tokens."""
    queries, keys = torch.empty(1, 28, 33, D, dtype=dtype), torch.empty(1, 4, 4_000, D, dtype=dtype)
    rows = torch.arange(4_000 - 33, 4_000)[None]
    column_stats.column_stats(queries, keys, scaling=0.1, rows=rows, **options)


def every_score(dtype: torch.dtype, D: int) -> None:
    """Take maxima, squares and means over a group, with everything that can be given."""
    columns, positions = torch.ones(1, 28, 4_000, dtype=torch.bool), torch.arange(4_000)[None]
    for power in (2, math.inf):
        scores(dtype, D, power=power, group=True, columns=columns, positions=positions)


CASES: dict[str, dict[str, tuple[Case, tuple[int, ...]]]] = {
    "ragged_attention": {
        "few_queries": (few_queries, (64, 80, 128)),
        "every_option": (every_option, (80,)),
    },
    "column_stats": {
        "scores": (scores, (64, 80, 128)),
        "every_score": (every_score, (80,)),
    },
    "compact": {"packing": (packing, (64, 80, 128))},
}


def main() -> None:
    """Print, as JSON, one line for every kernel in every case, type and width."""
    driver.set_active(Hopper())
    for name, (case, widths) in CASES[sys.argv[1]].items():
        for dtype, width in product(DTYPES, widths):
            for kernel in compiled(partial(case, getattr(torch, dtype), width)):
                registers, spilled = usage(kernel.asm["cubin"])
                sizes = (len(kernel.asm["cubin"]), kernel.metadata.shared, spilled, registers)
                row = Kernel(name, kernel.metadata.name, dtype, width, *sizes)
                print(json.dumps(asdict(row)), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()

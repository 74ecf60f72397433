"""The case `sums`: column sums over all rows of a prompt, beside attention and the whole matrix.

Times are taken in one process, in turns; memory in a fresh process per variant.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from foveate.bench.memory import growth, in_fresh_process
from foveate.bench.result import Spread
from foveate.bench.subject import Cases, Chart, Line, Panel, Result, Table, Tick
from foveate.bench.timing import (
    CLOCKS,
    check_setting,
    default_dtype,
    milliseconds,
    shuffled,
    summary,
)
from foveate.kernels.column_stats import column_stats

ATTENTION, SUMS, MATRIX = "causal attention", "column sums", "whole matrix and its sums"


@dataclass(frozen=True)
class SumsSetting:
    """One layer and the lengths of its prompts."""

    tokens: tuple[int, ...] = (2048, 4096, 8192)
    heads: int = 16
    kv_heads: int = 4
    width: int = 64
    seed: int = 20260
    device: str = "cpu"
    dtype: str = "float32"
    rounds: int = 5
    clock: str = "wall"

    def __post_init__(self) -> None:
        check_setting(self.device, self.dtype, self.clock)

    def to_dict(self) -> dict[str, Any]:
        """Return the setting as plain values."""
        return {**asdict(self), "tokens": list(self.tokens)}


def sums_setting(device: str = "cpu", **options: Any) -> SumsSetting:
    """Return the setting for a device; options are fields of it."""
    options = {"dtype": default_dtype(device), **options}
    if device != "cpu":
        options = {"tokens": (2048, 8192, 32768), "heads": 28, "width": 128, **options}
    return SumsSetting(device=device, **options)


def works(setting: SumsSetting, tokens: int) -> dict[str, Callable[[], Tensor]]:
    """Return what is timed, by name, all on the same queries, keys and values."""
    generator = torch.Generator().manual_seed(setting.seed)
    make = partial(torch.randn, generator=generator)
    dtype, width = getattr(torch, setting.dtype), setting.width
    place = {"device": setting.device, "dtype": dtype}
    queries = make(1, setting.heads, tokens, width).to(**place)
    keys, values = make(2, 1, setting.kv_heads, tokens, width).to(**place)
    rows = torch.arange(tokens, device=setting.device)[None]
    return {
        ATTENTION: partial(
            scaled_dot_product_attention, queries, keys, values, is_causal=True, enable_gqa=True
        ),
        SUMS: partial(column_stats, queries, keys, scaling=width**-0.5, rows=rows, group=True),
        MATRIX: partial(matrix_sums, queries, keys, width**-0.5),
    }


def matrix_sums(queries: Tensor, keys: Tensor, scaling: float) -> Tensor:
    """Return the column sums of group means as eager attention lets one take them."""
    (B, H), Hq, T = keys.shape[:2], queries.shape[1], queries.shape[2]
    logits = queries @ keys.repeat_interleave(Hq // H, 1).transpose(-1, -2)
    hidden = torch.ones(T, T, dtype=torch.bool, device=keys.device).triu(1)
    p = logits.mul_(scaling).masked_fill_(hidden, -torch.inf).softmax(-1, dtype=torch.float32)
    return p.sum(2).view(B, H, -1, T).mean(2)


def measure_sums(setting: SumsSetting, tick: Tick) -> Cases:
    """Return times, ratios and extra memory per length; `tick` hears of every finished round."""
    found: dict[str, Any] = {}
    for tokens in setting.tokens:
        name = f"{tokens:,} tokens"
        with torch.no_grad():
            found[name] = _timed(setting, works(setting, tokens), partial(tick, name))
        found[name]["extra_bytes"] = {
            variant: extra(setting, tokens, variant) for variant in (ATTENTION, SUMS, MATRIX)
        }
    return found


def _timed(
    setting: SumsSetting, work: dict[str, Callable[[], Tensor]], tick: Callable[[], None]
) -> dict[str, Any]:
    torch.testing.assert_close(work[SUMS](), work[MATRIX](), rtol=1e-3, atol=1e-3)
    times: dict[str, list[float]] = {name: [] for name in work}
    for number in range(setting.rounds):
        for name in shuffled(list(work), number):
            times[name].append(milliseconds(work[name], setting.device, CLOCKS[setting.clock]))
        tick()
    return summary(times, [(SUMS, ATTENTION), (MATRIX, ATTENTION), (SUMS, MATRIX)])


def extra(setting: SumsSetting, tokens: int, variant: str) -> int:
    """Return by how many bytes a process grows, at most, while it does one variant's work."""
    return in_fresh_process("sums", {**setting.to_dict(), "of": tokens, "variant": variant})


def run(words: dict[str, Any]) -> int:
    """Return by how many bytes this process grows, at most, while it does one variant's work."""
    words = {**words, "tokens": tuple(words["tokens"])}
    tokens, variant = words.pop("of"), words.pop("variant")
    setting = SumsSetting(**words)
    works(setting, 64)[variant]()  # threads and libraries are no memory of the work
    return growth(works(setting, tokens)[variant], setting.device)


def sums_table(result: Result) -> Table:
    """Return ratios and memory as columns and rows of text, for documents."""
    rows = [
        [
            case,
            *(str(_ratio(numbers, over)) for over in (SUMS, MATRIX)),
            *(f"{numbers['extra_bytes'][name] / 2**20:,.0f} MiB" for name in (SUMS, MATRIX)),
        ]
        for case, numbers in result["cases"].items()
    ]
    clock = result["setting"]["clock"]
    heads = [f"{name}, {clock} time / attention" for name in (SUMS, MATRIX)]
    return {
        "columns": ["prompt", *heads, f"{SUMS}, memory", f"{MATRIX}, memory"],
        "rows": rows,
    }


def sums_chart(result: Result) -> Chart:
    """Return time and memory over the length of the prompt."""
    cases, lengths = result["cases"].values(), tuple(result["setting"]["tokens"])
    ratios = {name: [_ratio(numbers, name) for numbers in cases] for name in (SUMS, MATRIX)}
    times = tuple(
        Line(
            name,
            lengths,
            tuple(x.median for x in each),
            tuple(x.low for x in each),
            tuple(x.high for x in each),
        )
        for name, each in ratios.items()
    )
    memory = tuple(
        Line(name, lengths, tuple(numbers["extra_bytes"][name] / 2**20 for numbers in cases))
        for name in (SUMS, MATRIX)
    )
    across = "tokens of the prompt"
    return Chart(
        "Column sums over all rows, one layer",
        (
            Panel("time", across, "time / attention", times, rules={"attention": 1}, log="xy"),
            Panel("memory", across, "MiB over what is held before", memory, log="xy"),
        ),
    )


def _ratio(numbers: dict[str, Any], over: str) -> Spread:
    return Spread(**numbers["ratios"][f"{over} / {ATTENTION}"])

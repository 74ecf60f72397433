"""The subject `prefill`: what capture, scoring and compaction add to reading a prompt.

Every preset stands between two prefills of the full cache in every round, and is compared with
their mean. Attention's own time is taken in the model, so that scores over all rows can be
compared with it.
"""

from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import torch

import foveate
from foveate.bench.model import Prompted, Size, build, sized
from foveate.bench.result import Spread
from foveate.bench.subject import Cases, Chart, Goal, Line, Panel, Result, Table, Tick
from foveate.bench.timing import (
    CLOCKS,
    check_setting,
    default_dtype,
    milliseconds,
    shuffled,
)
from foveate.errors import CacheError, InputError, nearest

ALL, WINDOW, NONE = "all rows", "some rows", "no rows"  # of queries, that a score reads
LIMITS = {WINDOW: 0.02, ALL: 0.6}  # over the whole prefill, and over attention alone
SMALL = Size(layers=2, hidden=512, heads=4, kv_heads=2, text=32, inner=2720)
LARGE = Size(layers=28, hidden=1536, heads=12, kv_heads=2, text=32, inner=8960)
OPTIONS: dict[str, dict[str, Any]] = {"sparsemm": {"table": "random"}}  # what has no default
BETWEEN = 4  # presets between two prefills of the full cache


def presets() -> tuple[str, ...]:
    """Return the names of all presets that compress."""
    return tuple(info.name for info in foveate.methods() if info.name != "full")


@dataclass(frozen=True)
class PrefillSetting:
    """What is run: `size.visual` is set from each of `tokens`, a prompt's length."""

    size: Size = SMALL
    tokens: tuple[int, ...] = (2048, 4096, 8192)
    presets: tuple[str, ...] = field(default_factory=presets)
    keep: float = 0.1
    seed: int = 20260
    device: str = "cpu"
    dtype: str = "float32"
    rounds: int = 5
    clock: str = "wall"

    def __post_init__(self) -> None:
        check_setting(self.device, self.dtype, self.clock)
        for name in self.presets:
            if name.partition("+")[0] not in presets():
                raise InputError(f"--presets {name!r} is not known; {nearest(name, presets())}")
            self.method(name)
        for tokens in self.tokens:
            self.at(tokens)

    def method(self, name: str) -> foveate.Method:
        """Return the preset of that name."""
        return foveate.method(name, keep=self.keep, **OPTIONS.get(name, {}))

    def at(self, tokens: int) -> Size:
        """Return the size for a prompt of so many tokens, text filling up a square image."""
        side = int(max(tokens - self.size.text, 0) ** 0.5)
        if side < 2:
            least = self.size.text + 4
            raise InputError(f"--tokens {tokens} is too short; give {least} or more")
        return replace(self.size, visual=(side, side), text=tokens - side * side)

    def to_dict(self) -> dict[str, Any]:
        """Return the setting as plain values."""
        return {**asdict(self), "tokens": list(self.tokens), "presets": list(self.presets)}


def prefill_setting(
    device: str = "cpu", kv_heads: int | None = None, **options: Any
) -> PrefillSetting:
    """Return the setting for a device; options are fields of it."""
    size = SMALL if device == "cpu" else LARGE
    options = {"dtype": default_dtype(device), **options}
    if device != "cpu":
        options = {"tokens": (2048, 4096, 8192, 16384, 32768), **options}
    size = sized(size, size.kv_heads if kv_heads is None else kv_heads)
    return PrefillSetting(size, device=device, **options)


def measure_prefill(setting: PrefillSetting, tick: Tick) -> Cases:
    """Return times and overheads per length; `tick` hears of every finished preset of a round."""
    found = {}
    for tokens in setting.tokens:
        name = f"{tokens:,} tokens"
        dtype = getattr(torch, setting.dtype)
        prompted = build(setting.at(tokens), setting.seed, setting.device, dtype)
        with torch.no_grad():
            found[name] = _length(prompted, setting, partial(tick, name))
    return found


@dataclass(frozen=True)
class Taken:
    """Milliseconds of one preset: of its prefills, of the full cache's, and of its own work."""

    spent: list[float]
    beside: list[float]
    own: list[float]

    @staticmethod
    def empty() -> "Taken":
        """Return that nothing was taken yet."""
        return Taken([], [], [])


def _length(prompted: Prompted, setting: PrefillSetting, tick: Any) -> dict[str, Any]:
    """Return the numbers of one length of prompts."""
    clock = CLOCKS[setting.clock]
    taken = {name: Taken.empty() for name in setting.presets}
    reads = {name: _reads(prompted, setting.method(name)) for name in setting.presets}
    _full(prompted, setting)  # warms up, as `_reads` has done for each preset
    attention = [1000 * prompted.attention_seconds(clock) for _ in range(setting.rounds)]
    for number in range(setting.rounds):
        names = shuffled(list(setting.presets), number * BETWEEN)
        before = _full(prompted, setting)
        for start in range(0, len(names), BETWEEN):
            group = names[start : start + BETWEEN]
            for name in group:
                spent, own = _ours(prompted, setting, name)
                taken[name].spent.append(spent)
                taken[name].own.append(own)
                tick()
            after = _full(prompted, setting)
            for name in group:
                taken[name].beside.append((before + after) / 2)
            before = after
    alone = Spread.of(attention)
    return {
        "attention": alone.to_dict(),
        "full": Spread.of([x for part in taken.values() for x in part.beside]).to_dict(),
        "presets": {
            name: {"reads": reads[name], **_overheads(part, alone.median)}
            for name, part in taken.items()
        },
    }


def _overheads(part: Taken, attention: float) -> dict[str, Any]:
    """Return what a preset adds, as shares of prefill and of attention."""
    pairs = list(zip(part.spent, part.beside, strict=True))
    own = zip(part.own, part.beside, strict=True)
    return {
        "milliseconds": Spread.of(part.spent).to_dict(),
        "over_full": Spread.of([a / b - 1 for a, b in pairs]).to_dict(),
        "over_attention": Spread.of([(a - b) / attention for a, b in pairs]).to_dict(),
        "own": Spread.of([a / b for a, b in own]).to_dict(),
    }


def _full(prompted: Prompted, setting: PrefillSetting) -> float:
    work = partial(prompted.prefill, prompted.native_cache())
    return milliseconds(work, setting.device, CLOCKS[setting.clock])


def _ours(prompted: Prompted, setting: PrefillSetting, name: str) -> tuple[float, float]:
    """Return the time of a prefill, and of the part in which layers are ranked and packed."""
    cache = foveate.CompressedCache(prompted.model, setting.method(name))
    work = partial(prompted.prefill, cache)
    spent = milliseconds(work, setting.device, CLOCKS[setting.clock])
    report = cache.report()
    if report.bytes_stored >= report.bytes_full:
        raise CacheError(
            f"{name} stores {report.bytes_stored:,} of {report.bytes_full:,} bytes after prefill, "
            "so that its time would not include compression; nothing is measured"
        )
    return spent, 1000 * report.seconds


def _reads(prompted: Prompted, method: foveate.Method) -> str:
    """Return which query rows of a prompt the score of a method reads."""
    cache = foveate.CompressedCache(prompted.model, method)
    prompted.prefill(cache)
    kinds = cache.turn.kinds
    assert kinds is not None
    rows = method.score.rows(kinds)
    if rows is None:
        return NONE
    return ALL if int(rows.sum()) > kinds.kind.shape[1] // 2 else WINDOW


def prefill_goals(result: Result) -> list[Goal]:
    """Return what presets add that has a limit: over prefill, or over attention for all rows."""
    return [
        Goal(f"{name} at {case}", _overhead(numbers)["median"], LIMITS[numbers["reads"]])
        for case, found in result["cases"].items()
        for name, numbers in found["presets"].items()
        if numbers["reads"] in LIMITS
    ]


def _overhead(numbers: dict[str, Any]) -> dict[str, Any]:
    """Return what is compared with a limit, for scores of that kind."""
    return numbers["over_attention" if numbers["reads"] == ALL else "over_full"]


def prefill_table(result: Result) -> Table:
    """Return a row per preset with a column for each length, all text, for documents."""
    cases = result["cases"]
    goals = {goal.what: goal for goal in prefill_goals(result)}
    rows = []
    for name in sorted(result["setting"]["presets"], key=lambda name: _order(result, name)):
        each = [found["presets"][name] for found in cases.values()]
        asked = [goals[what] for case in cases if (what := f"{name} at {case}") in goals]
        missed = [goal for goal in asked if not goal.met]
        verdict = "" if not asked else "met" if not missed else f"missed at {len(missed)}"
        limit = f"<= {asked[0].limit:.0%} {_of(each[0])}: " if asked else ""
        rows.append([name, each[0]["reads"], *map(_cell, each), limit + verdict])
    clock = result["setting"]["clock"]
    heads = [f"{case}, {clock} time added to prefill" for case in cases]
    return {"columns": ["preset", "score reads", *heads, "goal"], "rows": rows}


def _order(result: Result, name: str) -> int:
    """Return the place of a preset's kind: window, all rows, no rows."""
    first = next(iter(result["cases"].values()))
    return (WINDOW, ALL, NONE).index(first["presets"][name]["reads"])


def _of(numbers: dict[str, Any]) -> str:
    return "of attention" if numbers["reads"] == ALL else "of prefill"


def _cell(numbers: dict[str, Any]) -> str:
    spread = numbers["over_full"]
    text = f"{spread['median']:+.1%} ({spread['low']:+.1%} to {spread['high']:+.1%})"
    if numbers["reads"] == ALL:
        text += f", {numbers['over_attention']['median']:.0%} of attention"
    return text


def prefill_chart(result: Result) -> Chart:
    """Return what presets add to prefill and to attention, one row per preset."""
    cases = result["cases"]
    panels = []
    for reads, key, over in (
        ((WINDOW, NONE), "over_full", "prefill"),
        ((ALL,), "over_attention", "attention"),
    ):
        first = next(iter(cases.values()))["presets"]
        names = tuple(name for kind in reads for name in first if first[name]["reads"] == kind)
        lines = []
        for case, found in cases.items():
            each = [found["presets"][name][key] for name in names]
            x, low, high = (tuple(100 * s[k] for s in each) for k in ("median", "low", "high"))
            lines.append(Line(case, x, tuple(map(float, range(len(names)))), low, high))
        limit = LIMITS[reads[0]]
        panels.append(
            Panel(
                f"scores that read {' or '.join(reads)}",
                f"% added to {over}",
                "",
                tuple(lines),
                names=names,
                rules={f"{limit:.0%}": 100 * limit},
            )
        )
    return Chart("What presets add to prefill", tuple(panel for panel in panels if panel.names))

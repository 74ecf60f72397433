"""The subject `serve`: how many users fit into the same bytes of keys and values.

An engine that may hold as many bytes as some full caches take is asked by a growing number of
clients, each of which asks again as soon as it has its answer; once with full caches, once with
compressed ones.
"""

import statistics
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from PIL import Image

import foveate
from foveate.bench.result import Spread
from foveate.bench.subject import Cases, Chart, Line, Panel, Result, Table, Tick
from foveate.bench.timing import CLOCKS, Times, check_setting, default_dtype, shuffled, summary
from foveate.errors import CacheError
from foveate.serve.engine import Engine
from foveate.serve.engine.asking import Ask, Done, Event, Failed
from foveate.tiny import architecture
from foveate.tiny.processor import Processor
from foveate.tiny.vocabulary import TOKENS

FULL, OURS = "full", "compressed"
PATCH = 16  # pixels of a visual token of the model's family


@dataclass(frozen=True)
class ServeSetting:
    """What is run: a model of the embedded one's family with random weights, and its clients.

    `fit` full caches are what the engine may hold; every client asks `asks` times for `answer`
    tokens about a picture of `side` x `side` tokens.
    """

    layers: int = 8
    hidden: int = 512
    side: int = 32
    fit: int = 4
    clients: tuple[int, ...] = (1, 4, 16, 32)
    asks: int = 2
    answer: int = 128
    chunk: int | None = 512  # tokens of a pass over a prompt
    preset: str = "aircache"
    keep: float = 0.1
    seed: int = 20260
    device: str = "cpu"
    dtype: str = "float32"
    rounds: int = 2
    clock: str = "wall"

    def __post_init__(self) -> None:
        check_setting(self.device, self.dtype, self.clock)
        foveate.method(self.preset, keep=self.keep)  # raises for a share that is none

    def to_dict(self) -> dict[str, Any]:
        """Return the setting as plain values."""
        return {**asdict(self), "clients": list(self.clients)}


def serve_setting(device: str = "cpu", **options: Any) -> ServeSetting:
    """Return the setting for a device; options are fields of it."""
    large = {} if device == "cpu" else {"layers": 28, "hidden": 2048, "clients": (1, 4, 16, 64)}
    return ServeSetting(**{"device": device, "dtype": default_dtype(device), **large, **options})


def serve_ticks(setting: ServeSetting) -> int:
    """Return how many times clients are let loose on an engine."""
    return 2 * len(setting.clients) * setting.rounds


def measure_serve(setting: ServeSetting, tick: Tick) -> Cases:
    """Return what clients met, by their number; `tick` hears of every finished group of them."""
    asked = _Asked(setting)
    asked.run(FULL, 1)  # nothing is as slow as the first time
    cases: Cases = {}
    for clients in setting.clients:
        met: dict[str, list[_Met]] = {FULL: [], OURS: []}
        for number in range(setting.rounds):
            for name in shuffled([FULL, OURS], setting.seed + number):
                met[name].append(asked.run(name, clients))
                tick(f"{clients} clients, {name}, {number + 1} of {setting.rounds}")
        cases[str(clients)] = _case(met)
    return cases


@dataclass
class _Met:
    """What a group of clients met: seconds, all in all and of each request, and what was held."""

    tokens: int = 0
    seconds: float = 0.0
    most: int = 0  # requests that were answered at once
    peak: int = 0  # bytes held after a step
    budget: int = 0  # bytes that might have been held
    stored: int = 0  # bytes of one prompt
    failed: BaseException | None = None
    first: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)


def _case(met: dict[str, list[_Met]]) -> dict[str, Any]:
    """Return the numbers of one count of clients."""
    times: Times = {}
    for name, rounds in met.items():
        times[name] = [1000 * one.seconds / one.tokens for one in rounds]
        times[f"{name}, first"] = [1000 * statistics.median(one.first) for one in rounds]
        times[f"{name}, whole"] = [1000 * statistics.median(one.whole) for one in rounds]
    pairs = [(OURS, FULL)] + [(f"{OURS}, {x}", f"{FULL}, {x}") for x in ("first", "whole")]
    counts = ("most", "peak", "budget", "stored")
    held = {
        name: {word: max(getattr(x, word) for x in rounds) for word in counts}
        for name, rounds in met.items()
    }
    return {**summary(times, pairs), "held": held}


class _Asked:
    """A model with what its clients ask it."""

    def __init__(self, setting: ServeSetting) -> None:
        self.setting = setting
        torch.manual_seed(setting.seed)
        model = architecture.build(setting.layers, setting.hidden)
        self.model: Any = model.to(getattr(torch, setting.dtype)).eval()
        self.model.to(setting.device)
        self.model.generation_config.eos_token_id = len(TOKENS)  # every answer has its full length
        self.processor = Processor()
        self.method = foveate.method(setting.preset, keep=setting.keep)
        self.clock: Callable[[], float] = CLOCKS[setting.clock]
        self.budget: int | None = None
        # the last token is not stored, and what the one before it stores is freed in its step
        alone = self.run(FULL, 1, asks=1, answer=setting.answer + 2)
        self.budget = setting.fit * alone.peak

    def _ask(self, number: int, name: str, answer: int) -> Ask:
        noise = torch.Generator().manual_seed(self.setting.seed + number)
        side = PATCH * self.setting.side
        pixels = torch.randint(0, 256, (side, side, 3), dtype=torch.uint8, generator=noise)
        parts = [
            {"type": "image", "image": Image.fromarray(pixels.numpy())},
            {"type": "text", "text": "ABC?"},
        ]
        return Ask(
            [{"role": "user", "content": parts}],
            max_new_tokens=answer,
            method=self.method,
            full=name == FULL,
        )

    def run(self, name: str, clients: int, asks: int = 0, answer: int = 0) -> _Met:
        """Return what so many clients met, each of which asks one question after the other."""
        setting = self.setting
        numbers = range(clients * (asks or setting.asks))
        queue = iter([self._ask(number, name, answer or setting.answer) for number in numbers])
        engine = Engine(
            self.model,
            self.processor,
            kv_bytes=self.budget,
            queue=2 * clients,
            most=clients,
            chunk=setting.chunk,
        )
        met = _Met(budget=self.budget or 0)
        try:
            began = self.clock()
            for _ in range(clients):
                self._submit(engine, queue, met)
            while engine.step():
                met.most = max(met.most, engine.stats().running)
            met.seconds = self.clock() - began
            met.peak = engine.stats().kv_bytes_peak
        finally:
            engine.stop()
        if met.failed is not None or len(met.whole) != len(numbers):
            raise CacheError(f"{len(met.whole)} of {len(numbers)} requests ended") from met.failed
        return met

    def _submit(self, engine: Engine, queue: Iterator[Ask], met: _Met) -> None:
        """Ask the next question, and the one after it as soon as it is answered."""
        ask = next(queue, None)
        if ask is None:
            return
        began, heard = self.clock(), False

        def hear(event: Event) -> None:
            nonlocal heard
            now = self.clock() - began
            if isinstance(event, Failed):
                met.failed = event.error
            elif not heard:
                met.first.append(now)
                heard = True
            if isinstance(event, Done):
                met.tokens += event.completion_tokens
                met.stored = int(event.kv["bytes_stored"])
                met.whole.append(now)
                self._submit(engine, queue, met)

        engine.submit(ask, hear)


def serve_table(result: Result) -> Table:
    """Return a row per number of clients and kind of cache, all text, for documents."""
    rows = []
    for clients, case in result["cases"].items():
        for name in (FULL, OURS):
            held, times = case["held"][name], case["milliseconds"]
            ours = name == OURS
            rows.append(
                [
                    clients,
                    "full" if name == FULL else f"{result['setting']['keep']:.0%} kept",
                    str(held["most"]),
                    f"{1000 / times[name]['median']:,.0f}",
                    f"{1 / case['ratios'][f'{OURS} / {FULL}']['median']:.2f}" if ours else "1",
                    *(_beside(case, word) if ours else "1" for word in ("first", "whole")),
                    f"{held['peak'] / held['budget']:.0%}",
                ]
            )
    columns = ["clients", "cache", "answered at once", "tokens / s", "/ full cache"]
    times = ["first token / full cache", "whole answer / full cache", "bytes held at most"]
    return {"columns": columns + times, "rows": rows}


def _beside(case: dict[str, Any], word: str) -> str:
    spread = case["ratios"][f"{OURS}, {word} / {FULL}, {word}"]
    return str(Spread(**spread))


def serve_chart(result: Result) -> Chart:
    """Return tokens per second, and answers at once, over the number of clients."""
    cases = result["cases"]
    across = tuple(float(clients) for clients in cases)
    speed, most = [], []
    for name in (FULL, OURS):
        label = "full" if name == FULL else f"{result['setting']['keep']:.0%} kept"
        times = [case["milliseconds"][name] for case in cases.values()]
        median, high, low = (
            tuple(1000 / time[word] for time in times) for word in ("median", "low", "high")
        )
        speed.append(Line(label, across, median, low, high, dashed=name == FULL))
        counts = tuple(float(case["held"][name]["most"]) for case in cases.values())
        most.append(Line(label, across, counts, dashed=name == FULL))
    panels = (
        Panel("as many bytes for all", "clients", "tokens / s", tuple(speed), log="x"),
        Panel("", "clients", "answered at once", tuple(most), log="xy"),
    )
    return Chart("How many users fit", panels)

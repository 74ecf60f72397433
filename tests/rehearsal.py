"""A grid without a model: tasks of numbers, and somebody who answers right or wrong by rote."""

import gc
import os
import signal
import struct
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing.connection import Connection
from types import SimpleNamespace

import torch

from foveate.cli.models import Loaded
from foveate.errors import MethodError
from foveate.eval.entry import Entry
from foveate.eval.grid import Grid
from foveate.eval.running.unit import Setting
from foveate.eval.task import Message, Metric, Sample, Task


@dataclass(frozen=True)
class Numbers:
    """As many samples as asked for; `facts` by index make some of them troublesome."""

    facts: dict[int, dict[str, str]] = field(default_factory=dict)
    turns: int = 1

    def samples(self, number: int | None, seed: int) -> Sequence[Sample]:
        count = 5 if number is None else number
        return [
            Sample(
                f"{seed}-{index}",
                ((Message("user", (f"say {index}",)),),) * self.turns,
                (str(index),),
                self.facts.get(index, {}),
            )
            for index in range(count)
        ]


@dataclass(frozen=True)
class Told:
    said: str
    prompt: str
    kept: float = 0.5
    bytes_stored: int = 50
    bytes_full: int = 100
    seconds: float = 0.25
    measures: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Rote:
    """Answers right as often as the method's repr decides; `pause` is the time of one answer."""

    loaded: Loaded
    storage: str
    quantized: str | None
    pause: float = 0.0

    def answers(self, task, samples, method, *, measures=None):
        return [self._answer(task, sample, method) for sample in samples]

    def _answer(self, task, sample, method):
        time.sleep(self.pause)
        if method is not None:
            _trouble(sample.facts)
        luck = zlib.crc32(f"{task.name} {sample.id} {method!r}".encode()) % 10
        right = method is None or luck < 6
        return Told(sample.answers[0] if right else "?", prompt=f"asked {sample.id}")


class Repainted(Rote):
    """Finds another picture in sample 0-3 wherever the cache is compressed."""

    def _answer(self, task, sample, method):
        told = super()._answer(task, sample, method)
        if method is not None and sample.id == "0-3":
            return replace(told, prompt="another picture")
        return told


def _trouble(facts):
    if "raises" in facts:
        raise {"memory": torch.OutOfMemoryError, "method": MethodError}[facts["raises"]]("no room")
    if "breaks" in facts:
        raise torch.AcceleratorError("an illegal memory access")
    if facts.get("dies") == "while it speaks":
        mine = next(x for x in gc.get_objects() if isinstance(x, Connection))
        os.write(mine.fileno(), struct.pack("!i", 1000) + b"the beginning")
    if "dies" in facts:
        os.kill(os.getpid(), signal.SIGKILL)


def exact(said, sample):
    return float(said in sample.answers)


def load(weights: float = 1.0):
    model = torch.nn.Linear(3, 2)
    with torch.no_grad():
        model.weight.fill_(weights)
        model.bias.zero_()
    model.config = SimpleNamespace(_attn_implementation="sdpa")
    model.dtype, model.device = torch.float32, torch.device("cpu")
    return Loaded("numbers", model, None)


def grid(number=5, seeds=(0,), facts=None, keeps=(0.5, 0.1)) -> Grid:
    tasks = tuple(
        Task(name, Numbers(facts or {}), Metric("exact", exact)) for name in ("one", "two")
    )
    return Grid(tasks, (Entry("snapkv"), Entry("random", {"seed": 3})), keeps, seeds, number)


def setting(batch=2, pause=0.0, answerer=Rote) -> Setting:
    return Setting(batch=batch, answerer=partial(answerer, pause=pause))

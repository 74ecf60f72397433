"""A piece of a grid's work, small enough to lose: a few samples of one cell, and their records."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

import foveate
from foveate.errors import InputError
from foveate.eval.record import Cell, Record
from foveate.eval.running.origin import Identity
from foveate.eval.task import Sample, Task
from foveate.method import Method

__all__ = ["LASTING", "Answers", "Asked", "Desk", "Setting", "Unit", "Work", "failed"]

LASTING = getattr(torch, "AcceleratorError", ())  # after one, a process can do nothing any more
Asked = tuple[str, int, str]  # task, seed and sample


class Answers(Protocol):
    """Whoever answers samples: `foveate.eval.asking.answering.Answerer` does."""

    def answers(
        self, task: Task, samples: Sequence[Sample], method: Method | None, *, measures: Any = None
    ) -> Sequence[Any]:
        """Return a `Told` for each sample."""


@dataclass(frozen=True)
class Setting:
    """What answers depend on beside the grid and the model, and how many are asked for at once.

    `answerer(loaded, storage=..., quantized=...)` returns who answers, `Answerer` if None.
    """

    batch: int = 16
    storage: str = "dense"
    quantized: str | None = None
    fidelity: bool = False
    answerer: Callable[..., Answers] | None = None


@dataclass(frozen=True)
class Work:
    """All that a process needs to know once; `load` returns a `foveate.cli.models.Loaded`.

    `prompts` are the digests of what was asked before.
    """

    load: Callable[[], Any]
    setting: Setting
    tasks: Mapping[str, Task]
    methods: Mapping[tuple[str, str], Method | None]  # by entry and keep
    number: int | None
    prompts: Mapping[Asked, str] = field(default_factory=dict)

    def samples(self, cell: Cell) -> Sequence[Sample]:
        """Return the samples of a cell."""
        return self.tasks[cell.task].source.samples(self.number, cell.seed)


@dataclass(frozen=True)
class Unit:
    """Samples of a cell by their indices; `tries` counts the processes that died over them."""

    cell: Cell
    indices: tuple[int, ...]
    tries: int = 0


class Desk:
    """Where units become records: the work, and a model that is loaded.

    Raises `MethodError` for methods that the model or the storage cannot have.
    """

    def __init__(self, work: Work) -> None:
        loaded = work.load()
        setting = work.setting
        answerer = setting.answerer
        if answerer is None:
            from foveate.eval.asking.answering import Answerer

            _check(loaded.model, work)
            answerer = Answerer
        self.identity = Identity.of(loaded)
        self._answers = answerer(loaded, storage=setting.storage, quantized=setting.quantized)
        self._measures = _fidelities() if setting.fidelity else None
        self._work = work
        self._prompts = dict(work.prompts)
        self._sequences: dict[tuple[str, int], Sequence[Sample]] = {}
        self._slice: tuple[Any, list[Sample]] = (None, [])

    def records(self, unit: Unit) -> list[Record]:
        """Return a record of every sample; what raises is done again sample by sample.

        An accelerator that broke is raised: every sample after it would fail, too. Raises
        `InputError` for a sample that is not what other methods were asked.
        """
        samples = self._samples(unit)
        found = self._tried(unit.cell, samples)
        for sample, record in zip(samples, found, strict=True):
            self._check_prompt(sample, record)
        return found

    def _tried(self, cell: Cell, samples: Sequence[Sample]) -> list[Record]:
        try:
            return self._answered(cell, samples)
        except LASTING:
            raise
        except Exception:
            failure = traceback.format_exc()  # the exception itself would hold on to tensors
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if len(samples) == 1:
            return [failed(cell, samples[0].id, failure)]
        return [self._alone(cell, sample) for sample in samples]

    def _alone(self, cell: Cell, sample: Sample) -> Record:
        try:
            return self._answered(cell, [sample])[0]
        except LASTING:
            raise
        except Exception:
            return failed(cell, sample.id, traceback.format_exc())

    def _answered(self, cell: Cell, samples: Sequence[Sample]) -> list[Record]:
        task = self._work.tasks[cell.task]
        method = self._work.methods[cell.entry, cell.keep]
        told = self._answers.answers(task, samples, method, measures=self._measures)
        return [_judged(cell, task, *pair) for pair in zip(samples, told, strict=True)]

    def _check_prompt(self, sample: Sample, record: Record) -> None:
        """Compare what was asked with what other methods were asked.

        Later turns hold the answers to earlier ones, which are every method's own.
        """
        if len(sample.turns) > 1 or not record.prompt:
            return
        asked = (record.cell.task, record.cell.seed, sample.id)
        if self._prompts.setdefault(asked, record.prompt) != record.prompt:
            raise InputError(
                f"sample {sample.id} of {record.cell.task} is not what it was when other methods "
                "were asked: its picture has changed, or how the model reads it; put back what was "
                "there, or give another file with --out"
            )

    def _samples(self, unit: Unit) -> list[Sample]:
        """Return the unit's samples, which many units share one after the other."""
        of = (unit.cell.task, unit.cell.seed)
        if self._slice[0] != (of, unit.indices):
            if of not in self._sequences:
                self._sequences[of] = self._work.samples(unit.cell)
            chosen = [self._sequences[of][index] for index in unit.indices]
            self._slice = ((of, unit.indices), chosen)
        return self._slice[1]


def failed(cell: Cell, sample: str, error: str) -> Record:
    """Return the record of a sample that has no answer."""
    return Record(cell, sample, prompt="", said="", score=None, kept=0.0, error=error)


def _check(model: Any, work: Work) -> None:
    """Make a cache of every method once, so that what cannot be is known before the work."""
    form = {"storage": work.setting.storage, "quantized": work.setting.quantized}
    for (entry, keep), method in work.methods.items():
        if method is not None:
            try:
                foveate.CompressedCache(model, method, **form)  # type: ignore[arg-type]
            except InputError as error:
                raise type(error)(f"{entry} at keep={keep}: {error}") from error


def _fidelities() -> Any:
    from foveate.eval.fidelity import Fidelities

    return Fidelities()


def _judged(cell: Cell, task: Task, sample: Sample, told: Any) -> Record:
    score, error = None, None
    try:
        score = float(task.metric.score(told.said, sample))
        if not 0 <= score <= 1:
            raise ValueError(f"metric {task.metric.name} gave {score}; scores are from 0 to 1")
    except Exception:
        score, error = None, traceback.format_exc()
    return Record(
        cell=cell,
        sample=sample.id,
        prompt=told.prompt,
        said=told.said,
        score=score,
        kept=float(told.kept),
        bytes_stored=int(told.bytes_stored),
        bytes_full=int(told.bytes_full),
        seconds=round(float(told.seconds), 4),
        error=error,
        measures={name: float(value) for name, value in told.measures.items()},
    )

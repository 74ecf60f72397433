"""Processes that work through units; one that dies is replaced, and its unit done again."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from foveate.errors import FoveateError
from foveate.eval.record import Record
from foveate.eval.running.unit import LASTING, Desk, Unit, Work, failed

__all__ = ["Here", "Processes"]


class Here:
    """This process does all the work itself."""

    def __init__(self, work: Work) -> None:
        self._desk = Desk(work)
        self.identity = self._desk.identity

    def __enter__(self) -> Here:
        return self

    def __exit__(self, *exception: object) -> None:
        return

    def records(self, units: Iterable[Unit]) -> Iterator[list[Record]]:
        """Yield the records of every unit."""
        for unit in units:
            try:
                records = self._desk.records(unit)
            except LASTING as error:
                raise FoveateError(
                    f"the accelerator broke ({error}); all answers so far are safe: give the same "
                    "command again"
                ) from error
            yield records


class Processes:
    """Several processes, of one thread and with a model each.

    Samples over which a process died are done again one by one; the one that kills another process
    is a failed sample.
    """

    def __init__(self, work: Work, number: int) -> None:
        self._work = work
        self._workers = [_Worker(work) for _ in range(number)]
        try:
            self.identity = self._workers[0].hear()
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *exception: object) -> None:
        for worker in self._workers:
            worker.stop()

    def records(self, units: Iterable[Unit]) -> Iterator[list[Record]]:
        """Yield the records of every unit, in the order in which they are done."""
        queue = deque(units)
        while queue or any(worker.unit for worker in self._workers):
            for worker in self._workers:
                if queue and worker.is_idle:
                    worker.give(queue.popleft())
            speaking = wait([worker.connection for worker in self._workers])
            for place, worker in enumerate(self._workers):
                if worker.connection not in speaking:
                    continue
                try:
                    said = worker.hear()
                except EOFError:
                    worker.stop()
                    self._workers[place] = _Worker(self._work)
                    yield from self._again(worker, queue)
                else:
                    if isinstance(said, list):
                        yield said

    def _again(self, dead: _Worker, queue: deque[Unit]) -> Iterator[list[Record]]:
        """Put back what a process died over; yield that it failed if it is not the first time."""
        unit = dead.unit
        if unit is None:
            return
        if unit.tries == 0:
            queue.extend(Unit(unit.cell, (index,), tries=1) for index in unit.indices)
            return
        sample = self._work.samples(unit.cell)[unit.indices[0]]
        what = f"the process that answered it died twice, the last time with {dead.end}"
        yield [failed(unit.cell, sample.id, what)]


class _Worker:
    """One process, seen from outside."""

    def __init__(self, work: Work) -> None:
        context = get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.unit: Unit | None = None
        self._is_ready = False
        self._process = context.Process(target=_serve, args=(theirs, work), daemon=True)
        with _deaf():
            self._process.start()
        theirs.close()

    @property
    def is_idle(self) -> bool:
        """Return whether it waits for something to do."""
        return self._is_ready and self.unit is None

    @property
    def end(self) -> str:
        """Return how the process ended."""
        return f"exit code {self._process.exitcode}"

    def give(self, unit: Unit) -> None:
        """Let it work on a unit."""
        self.unit = unit
        with contextlib.suppress(BrokenPipeError):  # it is dead, as `hear` will say
            self.connection.send(unit)

    def hear(self) -> Any:
        """Return what it says: the identity of its model first, then records.

        Raises `EOFError` if it died over a unit or idle, and the error that ended it otherwise.
        """
        try:
            said = self.connection.recv()
        except (EOFError, OSError):  # the latter in the middle of a message
            self._process.join()
            if not self._is_ready:
                raise FoveateError(
                    f"a process ended while it loaded the model, with {self.end}; perhaps memory "
                    "was short: use fewer --workers"
                ) from None
            raise EOFError from None
        if isinstance(said, Exception):
            raise said
        if self._is_ready:
            self.unit = None
        self._is_ready = True
        return said

    def stop(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.join()
        self.connection.close()


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """Let processes that start now ignore Ctrl-C, which is the parent's to hear."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _serve(connection: Connection, work: Work) -> None:
    """Answer units until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Windows inherits nothing
    torch.set_num_threads(1)
    with contextlib.suppress(EOFError, BrokenPipeError):  # the parent is gone
        try:
            desk = Desk(work)
            connection.send(desk.identity)
            while True:
                connection.send(desk.records(connection.recv()))
        except LASTING:
            raise  # this process is lost, and another takes its place
        except FoveateError as error:
            connection.send(error)
        except (ImportError, OSError, RuntimeError, ValueError, TypeError, LookupError) as error:
            connection.send(FoveateError(f"{type(error).__name__}: {error}"))

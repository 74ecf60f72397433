"""Processes that `torchrun` or `accelerate launch` started together, and what they agree on."""

from __future__ import annotations

import os
import pickle
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, Protocol, TypeVar

import torch

from foveate.errors import FoveateError

__all__ = ["Alone", "Ranks", "Team", "launched", "team"]

T = TypeVar("T")
TOLD = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")  # by every launcher
PATIENCE = timedelta(days=20)  # who is slow may be slow; in ms, they are 31 bits
PAUSE = 0.02  # seconds


class Team(Protocol):
    """All processes that work through one grid, seen from one of them."""

    rank: int
    size: int

    def same(self, make: Callable[[], T]) -> T:
        """Return what the first process makes, in every process; all end if it raises."""

    def take(self, units: Sequence[T]) -> Iterator[T]:
        """Yield units that no other process was given, until there are none left."""

    def count(self, what: str, number: int) -> int:
        """Add to a number that all processes share, and return it."""

    def wait(self) -> None:
        """Return when every process has come here."""


class Alone:
    """A process that nobody else works with."""

    rank, size = 0, 1

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def same(self, make: Callable[[], T]) -> T:
        """Return what is made."""
        self._counts.clear()
        return make()

    def take(self, units: Sequence[T]) -> Iterator[T]:
        """Yield all units."""
        yield from units

    def count(self, what: str, number: int) -> int:
        """Return the sum so far."""
        self._counts[what] += number
        return self._counts[what]

    def wait(self) -> None:
        """Return at once."""


class Ranks:
    """One of several processes; they talk over the processor, whatever the model runs on.

    The group is nobody else's, not even torch's default: modules that are imported later take that
    one into the defaults of their functions, and its threads then outlive `destroy_process_group`
    and can abort an interpreter that is being ended.
    """

    def __init__(self, group: Any, store: Any, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self._group, self._store, self._round = group, store, 0

    def same(self, make: Callable[[], T]) -> T:
        """Return what the first process makes; if it raises, the others end without a word."""
        self._round += 1
        if self.rank == 0:
            try:
                made = make()
            except BaseException:
                with suppress(FoveateError):  # they ended first
                    self._tell((None, False))
                raise
            self._tell((made, True))
            return made
        heard, is_made = self._hear()
        if not is_made:
            raise SystemExit(1)
        return heard

    def take(self, units: Sequence[T]) -> Iterator[T]:
        """Yield the next unit that nobody has."""
        while (place := self.count("unit", 1) - 1) < len(units):
            yield units[place]

    def count(self, what: str, number: int) -> int:
        """Return the sum of all processes so far; each `same` begins anew."""
        return _together(lambda: self._store.add(f"{self._round}/{what}", number))

    def wait(self) -> None:
        """Return when every process has come here."""
        _finish(lambda: self._group.barrier())

    def close(self) -> None:
        """Leave the others; this is where the threads of the group end."""
        self._group = None

    def _tell(self, told: Any) -> None:
        data = torch.frombuffer(bytearray(pickle.dumps(told)), dtype=torch.uint8)
        self._share(torch.tensor([len(data)]))
        self._share(data)

    def _hear(self) -> Any:
        length = torch.zeros(1, dtype=torch.long)
        self._share(length)
        data = torch.empty(int(length), dtype=torch.uint8)
        self._share(data)
        return pickle.loads(data.numpy().tobytes())

    def _share(self, data: torch.Tensor) -> None:
        """Make data everywhere what they are in the first process."""
        _finish(lambda: self._group.broadcast([data]))


def _finish(start: Callable[[], Any]) -> None:
    """Do something with the others; signals are heard meanwhile."""

    def done() -> None:
        work = start()
        while not work.is_completed():
            time.sleep(PAUSE)
        work.wait()

    _together(done)


def _together(act: Callable[[], T]) -> T:
    try:
        return act()
    except RuntimeError as error:  # a connection is closed
        raise FoveateError(
            f"another process of this run ended ({error}); all answers so far are safe: give "
            "the same command again"
        ) from error


def launched(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether a launcher started this process beside others."""
    return all(environment.get(name) for name in TOLD) and int(environment["WORLD_SIZE"]) > 1


@contextmanager
def team() -> Iterator[Team]:
    """Join the processes that were started together, each on an accelerator of its own."""
    if not launched():
        yield Alone()
        return
    _take_accelerator(int(os.environ["LOCAL_RANK"]))
    from torch.distributed import PrefixStore, ProcessGroupGloo  # type: ignore[attr-defined]
    from torch.distributed.rendezvous import rendezvous

    store, rank, size = next(rendezvous("env://", timeout=PATIENCE))
    life = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")  # the store outlives the processes
    store = PrefixStore(f"foveate {life}", store)
    place = PrefixStore("group", store)
    group = _together(lambda: ProcessGroupGloo(place, rank, size, PATIENCE))
    ranks = Ranks(group, PrefixStore("run", store), rank, size)
    del group  # it ends where the last name for it does
    try:
        yield ranks
    finally:
        ranks.close()


def _take_accelerator(local: int) -> None:
    """Let `cuda` mean this process's own; where there are fewer than processes, they share."""
    if torch.cuda.is_available():
        torch.cuda.set_device(local % torch.cuda.device_count())

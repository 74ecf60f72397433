"""Processes that `torchrun` or `accelerate launch` started together, and what they agree on."""

from __future__ import annotations

import os
import pickle
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Protocol, TypeVar

import torch

from foveate.errors import FoveateError

__all__ = ["Alone", "Ranks", "Team", "launched", "team"]

T = TypeVar("T")
TOLD = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")  # by every launcher
PIECE = 1 << 22  # bytes; a store takes less than 8 MiB at once
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
    """One of several processes; they talk through the store that the launcher keeps for them.

    There is no process group: its threads can outlive `destroy_process_group`, and then end a
    process that has done all its work with an abort.
    """

    def __init__(self, store: Any, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self._store, self._round = store, 0

    def same(self, make: Callable[[], T]) -> T:
        """Return what the first process makes; if it raises, the others end without a word."""
        self._round += 1
        told: Any = (None, False)
        if self.rank == 0:
            try:
                told = (make(), True)
            finally:
                self._together(lambda: self._tell(pickle.dumps(told)))
        else:
            told = pickle.loads(self._together(self._hear))
        if not told[1]:
            raise SystemExit(1)
        return told[0]

    def take(self, units: Sequence[T]) -> Iterator[T]:
        """Yield the next unit that nobody has."""
        while (place := self.count("unit", 1) - 1) < len(units):
            yield units[place]

    def count(self, what: str, number: int) -> int:
        """Return the sum of all processes so far; each `same` begins anew."""
        return self._together(lambda: self._store.add(f"{self._round}/{what}", number))

    def wait(self) -> None:
        """Return when every process has come here."""
        if self.rank == 0:
            self._together(lambda: self._until(lambda: self.count("here", 0) == self.size - 1))
        else:
            self.count("here", 1)
        self.same(lambda: None)

    def leave(self) -> None:
        """Tell the others that nothing more comes from here."""
        with suppress(RuntimeError):  # they left first
            self._store.set("left", str(self.rank))

    def _tell(self, data: bytes) -> None:
        """Say it in pieces, and take them back when everybody has heard them."""
        pieces = [data[at : at + PIECE] for at in range(0, len(data), PIECE)]
        keys = [f"{self._round}/piece {place}" for place in range(len(pieces))]
        for key, piece in zip(keys, pieces, strict=True):
            self._store.set(key, piece)
        self._store.set(f"{self._round}/pieces", str(len(pieces)))
        self._until(lambda: self._store.add(f"{self._round}/heard", 0) == self.size - 1)
        for key in keys:
            self._store.delete_key(key)

    def _hear(self) -> bytes:
        told = f"{self._round}/pieces"
        self._until(lambda: self._store.check([told]))
        count = int(self._store.get(told))
        keys = (f"{self._round}/piece {place}" for place in range(count))
        data = b"".join(self._store.get(key) for key in keys)
        self._store.add(f"{self._round}/heard", 1)
        return data

    def _until(self, come: Callable[[], bool]) -> None:
        """Return when it has come; somebody may be slow, and signals are heard meanwhile."""
        while not come():
            if self._store.check(["left"]):
                raise RuntimeError(f"process {self._store.get('left').decode()} left")
            time.sleep(PAUSE)

    def _together(self, act: Callable[[], T]) -> T:
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
    from torch.distributed import PrefixStore  # type: ignore[attr-defined]
    from torch.distributed.rendezvous import rendezvous

    store, rank, size = next(rendezvous("env://"))
    life = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")  # the store outlives the processes
    ranks = Ranks(PrefixStore(f"foveate {life}", store), rank, size)
    try:
        yield ranks
    except (Exception, KeyboardInterrupt):
        ranks.leave()
        raise


def _take_accelerator(local: int) -> None:
    """Let `cuda` mean this process's own; where there are fewer than processes, they share."""
    if torch.cuda.is_available():
        torch.cuda.set_device(local % torch.cuda.device_count())

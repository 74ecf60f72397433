"""What a run writes down: who ran, and one record for every answer; lines of JSON, one file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["VERSION", "Cell", "Record", "Run"]

VERSION = 1  # of the log; a log of another version is refused


@dataclass(frozen=True, order=True)
class Cell:
    """One cell of a grid: which task, which method, how much is kept, which seed of the task."""

    task: str
    entry: str  # its label
    keep: str  # as it was given: "0.1", "64", "auto"; "1.0" for the full cache
    seed: int = 0


@dataclass(frozen=True)
class Run:
    """What a log begins with, again after every restart: all that answers may depend on."""

    model: str
    revision: str  # of the model: its hub commit, or a digest of its weights
    commit: str
    date: str
    versions: Mapping[str, str]
    machine: Mapping[str, Any]
    settings: Mapping[str, Any]  # device, dtype, batch, storage ...
    tasks: Mapping[str, str]  # name: repr, metric and source included
    methods: Mapping[str, str]  # "entry @ keep": repr of the method
    version: int = VERSION


@dataclass(frozen=True)
class Record:
    """One answer: what was said, what it is worth, and what the cache held after the prompt.

    `score` is None if the sample failed, and `error` then is the traceback. `kept` is the share of
    visual tokens that is stored, over layers, heads and turns; `measures` are those of fidelity.
    """

    cell: Cell
    sample: str
    prompt: str  # digest of the token ids of the last prompt and of the pixels
    said: str
    score: float | None
    kept: float = 1.0
    bytes_stored: int = 0
    bytes_full: int = 0
    seconds: float = 0.0  # without the reading of a prompt that came just before
    error: str | None = None
    measures: Mapping[str, float] = field(default_factory=dict)

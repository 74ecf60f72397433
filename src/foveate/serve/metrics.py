"""Counts and times for Prometheus; what the engine holds is asked when somebody looks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, is_dataclass
from numbers import Real
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from foveate.serve.answering import Answers
from foveate.serve.engine.asking import Done
from foveate.serve.room import Room

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """The numbers of one server."""

    def __init__(self, engine: Answers, room: Room) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Now(engine, room))
        self._requests = Counter(
            "foveate_requests", "HTTP requests.", ("path", "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "foveate_request_seconds",
            "Time to the end of an HTTP response.",
            ("path",),
            registry=self._registry,
            buckets=SECONDS,
        )
        self._first = Histogram(
            "foveate_first_token_seconds",
            "Time from a chat request to its first text.",
            registry=self._registry,
            buckets=SECONDS,
        )
        self._tokens = Counter(
            "foveate_tokens",
            "Tokens of answered requests: prompt (visual ones too), visual, completion.",
            ("kind",),
            registry=self._registry,
        )

    def request(self, path: str, status: int, seconds: float) -> None:
        """Count an HTTP request that is over."""
        self._requests.labels(path, status).inc()
        self._seconds.labels(path).observe(seconds)

    def first(self, seconds: float) -> None:
        """Note the time to the first text of an answer."""
        self._first.observe(seconds)

    def done(self, done: Done) -> None:
        """Count the tokens of an answer."""
        self._tokens.labels("prompt").inc(done.prompt_tokens)
        self._tokens.labels("visual").inc(done.visual_tokens)
        self._tokens.labels("completion").inc(done.completion_tokens)

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self._registry)


class _Now(Collector):
    """What the engine and the room of requests hold at this moment."""

    def __init__(self, engine: Answers, room: Room) -> None:
        self._engine, self._room = engine, room

    def collect(self) -> Iterator[GaugeMetricFamily]:
        yield GaugeMetricFamily(
            "foveate_request_bytes", "Bytes of requests in flight.", self._room.taken
        )
        for name, value in numbers(self._engine.stats()).items():
            yield GaugeMetricFamily(f"foveate_engine_{name}", f"The engine's {name}.", value)


def numbers(stats: Any) -> dict[str, float]:
    """Return the numbers among an engine's statistics, by name."""
    named = asdict(stats) if is_dataclass(stats) and not isinstance(stats, type) else dict(stats)
    return {name: float(value) for name, value in named.items() if isinstance(value, Real)}

"""Runs a model's answers with a compressed cache: each call is counted, and none fails in silence.

Many of lmms-eval's models catch every error of `generate` and answer nothing in its place. A method
that fails would then look like one that forgets everything.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from lmms_eval.api.instance import GenerationResult, TokenCounts, unwrap_generation_output
from lmms_eval.models.model_utils.gen_metrics import get_logged_metrics_history, log_metrics
from loguru import logger

from foveate import CacheReport, Session
from foveate.errors import CacheError
from foveate.hf.support import unwrap
from foveate.integrations.compression import Compression

__all__ = ["Held", "watched"]

Key = tuple[Any, ...]  # task, split and number of a document


@dataclass
class Held(TokenCounts):
    """Token counts of one answer, and what its cache held: both are in the samples of a run."""

    cache: Mapping[str, float | int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return what is written for the sample."""
        return {**super().to_dict(), **self.cache}


class _Failed(BaseException):
    """Carries an error past models that take every `Exception` for an empty answer."""

    def __init__(self, error: Exception) -> None:
        self.error = error


class _Documents:
    """Passes on what is read from the tasks, and notes which documents those are."""

    def __init__(self, inner: Any, path: Key, note: Callable[[Key], None]) -> None:
        self.inner, self.path, self.note = inner, path, note

    def __getitem__(self, key: Any) -> Any:
        item, path = self.inner[key], (*self.path, key)
        if len(path) < 3:
            return _Documents(item, path, self.note)
        self.note(path)
        return item

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class _Watch:
    """What the calls of a run were about, what they held, and how long they took."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.read: list[Key] = []  # since the last call
        self.held: dict[Key, Mapping[str, float | int]] = {}
        self.calls = self.rows = self.tokens = 0
        self.seconds = 0.0

    @contextmanager
    def over(self, model: Any) -> Iterator[None]:
        """Watch the model's `generate`, which the session has replaced already."""
        held = model.__dict__["generate"]
        model.__dict__["generate"] = functools.wraps(held)(functools.partial(self.call, held))
        try:
            yield
        finally:
            model.__dict__["generate"] = held

    def call(self, generate: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Generate, and note what came of it."""
        asked, self.read = list(dict.fromkeys(self.read)), []
        before, began = len(self.session.reports), time.perf_counter()
        try:
            output = generate(*args, **kwargs)
            if len(self.session.reports) == before:
                raise CacheError(
                    "this call of generate brought a cache of its own, which cannot be compressed; "
                    "set the model up without one"
                )
        except Exception as error:
            logger.error(f"generate failed on {asked or 'a prompt'}: {error!r}")
            raise _Failed(error) from error
        self.seconds += time.perf_counter() - began
        self._count(asked, _prompt(args, kwargs), output)
        return output

    def _count(self, asked: Sequence[Key], prompt: Any, output: Any) -> None:
        new = getattr(output, "sequences", output)
        rows = len(new) if prompt is None else len(prompt)
        self.calls += 1
        self.rows += rows
        self.tokens += len(new) * (new.shape[1] - (0 if prompt is None else prompt.shape[1]))
        if len(asked) <= rows:  # a document may fill several rows; of more, some were read ahead
            self.held |= dict.fromkeys(asked, _each(self.session.reports[-1], rows))


def watched(
    lm: Any,
    compression: Compression,
    ask: Callable[[Sequence[Any]], Sequence[Any]],
    requests: Sequence[Any],
) -> list[GenerationResult]:
    """Return what `ask` answers, its caches compressed; raises what `generate` raised inside."""
    if isinstance(lm.task_dict, _Documents):  # one kind of request handed on as another
        return list(ask(requests))
    tasks, logged = lm.task_dict, len(get_logged_metrics_history())
    try:
        with compression.on(lm.model) as session:
            watch = _Watch(session)
            lm.task_dict = _Documents(tasks, (), lambda key: watch.read.append(key))
            with watch.over(unwrap(lm.model)):
                answers = list(ask(requests))
    except _Failed as failure:
        raise failure.error from failure.error.__cause__
    finally:
        lm.task_dict = tasks
    _check(lm, watch, len(requests))
    _tell(compression, watch, timed=len(get_logged_metrics_history()) == logged)
    return [
        _result(answer, watch.held.get(_key(request)))
        for request, answer in zip(requests, answers, strict=True)
    ]


def _prompt(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Return the prompt's token ids, which the output begins with, if the call has any."""
    return kwargs.get("input_ids", args[0] if args else kwargs.get("inputs"))


def _each(report: CacheReport, rows: int) -> dict[str, float | int]:
    """Return the numbers of one row, as the mean of its batch."""
    total = report.total_visual
    return {
        "visual_tokens": total / rows,
        "kept_visual": report.kept_visual / total if total else 1.0,
        "cache_bytes": report.bytes_stored // rows,
        "full_cache_bytes": report.bytes_full // rows,
    }


def _check(lm: Any, watch: _Watch, asked: int) -> None:
    """Raise if nothing was compressed, and say so if some answers came without the model."""
    if asked and not watch.calls:
        raise CacheError(
            f"{type(lm).__name__} answered {asked} requests without calling generate of its "
            f"{type(lm.model).__name__}, so nothing was compressed; wrap a model of lmms-eval that "
            "runs Hugging Face's generate"
        )
    if watch.rows < asked:
        logger.warning(
            f"foveate: only {watch.rows} of {asked} answers were generated; the model gave the "
            "others without generate, see its messages above"
        )


def _tell(compression: Compression, watch: _Watch, timed: bool) -> None:
    """Log what was kept, for people and for the table of throughput."""
    if not watch.calls:
        return
    logger.info(f"foveate: {compression.tally}")
    seconds, tokens = (watch.seconds, watch.tokens) if timed else (0.0, 0)
    sums = compression.tally.to_dict()
    shares = {f"foveate_{k}": v for k, v in sums.items() if k.startswith("share")}
    sizes = {
        "foveate_bytes_stored_per_call": sums["bytes_stored"] / sums["calls"],
        "foveate_bytes_full_per_call": sums["bytes_full"] / sums["calls"],
    }
    log_metrics(seconds, tokens, tokens / seconds if seconds else 0.0, {**shares, **sizes})


def _key(request: Any) -> Key:
    """Return which document a request is about: every kind ends with number, task and split."""
    number, task, split = request.args[-3:]
    return task, split, number


def _result(answer: Any, held: Mapping[str, float | int] | None) -> GenerationResult:
    text, counts = unwrap_generation_output(answer)
    if held is not None:
        counts = Held(**(vars(counts) if counts is not None else {}), cache=held)
    return GenerationResult(text=text, token_counts=counts)

"""Rows of a data set answered in batches, where a bad row is an error in a column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import foveate
from foveate import Method
from foveate.cli import models
from foveate.errors import FoveateError, InputError
from foveate.eval.asking.answering import Answerer, Told
from foveate.eval.running.unit import LASTING
from foveate.eval.task import Metric, Sample, Task
from foveate.integrations.ray.actors import use_threads
from foveate.integrations.ray.cells import Reader

__all__ = ["BatchGenerator"]

FOUND = ("answer", "kept", "bytes_stored", "bytes_full", "error")


class BatchGenerator:
    """Answers batches of rows with a compressed cache, for `map_batches` and loops of your own.

    `image` and `question` name the columns that are read. An image is bytes, a path below `folder`,
    an array, a PIL image, a record of Hugging Face, or a list of those; `prompt` is what is asked,
    with `{question}` in it or not. A batch comes back with the columns that it had, but for the
    images unless `keep_images`, and five more, with `prefix` before their names: `answer`, the
    share `kept` of the visual tokens, `bytes_stored` and `bytes_full` (the batch's, evenly by row),
    and `error`, empty where there is an answer; where there is none, `kept` is NaN.

    `method` is a name, with `keep` and `options`, or a `Method`; None or "full" is the full cache.
    `threads` are torch's, as many as the Ray actor's CPUs if not given.
    """

    def __init__(
        self,
        model: str | None = None,
        method: Method | str | None = "aircache",
        *,
        keep: float | int | str | None = None,
        options: Mapping[str, Any] | None = None,
        image: str = "image",
        question: str = "question",
        prompt: str = "{question}",
        folder: str | Path = ".",
        prefix: str = "",
        keep_images: bool = False,
        max_new_tokens: int = 64,
        storage: str = "dense",
        quantized: str | None = None,
        dtype: str = "auto",
        device: str = "auto",
        attn: str | None = None,
        threads: int | None = None,
    ) -> None:
        self.method = _method(method, keep, options or {})
        if max_new_tokens < 1:
            raise InputError(f"max_new_tokens={max_new_tokens}; give at least 1")
        use_threads(threads)
        self.prefix, self.keep_images = prefix, keep_images
        self._reader = Reader(image, question, prompt, Path(folder).expanduser())
        self._task = _task(prompt, max_new_tokens)
        loaded = models.load(model, dtype, device, attn)
        form: dict[str, Any] = {"storage": storage, "quantized": quantized}
        if self.method is not None:  # a cache that cannot be is known before the first row
            foveate.CompressedCache(loaded.model, self.method, **form)
        self._answerer = Answerer(loaded, **form, repeats=False)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Return the batch with answers; raises `InputError` only where columns do not fit."""
        carried = self._carried(batch)
        read = {name: list(batch[name]) for name in self._reader.columns}  # a Series has labels
        rows = range(len(read[self._reader.image]))
        found: dict[int, Told | str] = {}
        samples: dict[int, Sample] = {}
        for row in rows:
            try:
                cells = {name: column[row] for name, column in read.items()}
                samples[row] = self._reader.sample(str(row), cells)
            except Exception as error:
                found[row] = _words(error)
        found |= zip(samples, self._answered(list(samples.values())), strict=True)
        return carried | {
            self.prefix + name: column
            for name, column in _columns([found[row] for row in rows]).items()
        }

    def _carried(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Return the columns that come back as they are."""
        if not isinstance(batch, Mapping):
            raise InputError(
                f"a batch is {type(batch).__name__}; give columns by name: with Ray, "
                'batch_format="numpy"'
            )
        for name in self._reader.columns:
            if name not in batch:
                raise InputError(
                    f"there is no column {name!r}; the batch has {', '.join(map(repr, batch))}: "
                    "name the columns with image= and question=, or give a prompt without "
                    "{question}"
                )
        dropped = () if self.keep_images else (self._reader.image,)
        carried = {name: column for name, column in batch.items() if name not in dropped}
        for name in FOUND:
            if self.prefix + name in carried:
                raise InputError(
                    f"the batch has a column {self.prefix + name!r} already; give another prefix, "
                    'such as prefix="model_"'
                )
        return carried

    def _answered(self, samples: Sequence[Sample]) -> list[Told | str]:
        """Return an answer or an error for each; what raises together is done again in halves."""
        if not samples:
            return []
        try:
            return [*self._answerer.answers(self._task, samples, self.method)]
        except LASTING:
            raise
        except Exception as error:
            if len(samples) == 1:
                return [_words(error)]
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        half = len(samples) // 2
        return self._answered(samples[:half]) + self._answered(samples[half:])


def _columns(found: Sequence[Told | str]) -> dict[str, Any]:
    """Return what was found, of the same types in every batch."""
    none = Told("", "", float("nan"), 0, 0, 0.0)
    told = [none if isinstance(one, str) else one for one in found]
    errors = [one if isinstance(one, str) else "" for one in found]
    return {
        "answer": np.array([one.said for one in told], dtype=object),
        "kept": np.array([one.kept for one in told], dtype=np.float64),
        "bytes_stored": np.array([one.bytes_stored for one in told], dtype=np.int64),
        "bytes_full": np.array([one.bytes_full for one in told], dtype=np.int64),
        "error": np.array(errors, dtype=object),
    }


def _words(error: Exception) -> str:
    words = str(error) if isinstance(error, FoveateError) else f"{type(error).__name__}: {error}"
    return words.encode(errors="backslashreplace").decode()  # names of files may be no UTF-8


def _method(
    method: Method | str | None, keep: float | int | str | None, options: Mapping[str, Any]
) -> Method | None:
    """Return the method, None for the full cache."""
    if isinstance(method, str) and method != "full":
        return foveate.method(method, keep=keep, **options)
    if keep is not None or options:
        given = "a complete method" if isinstance(method, Method) else "the full cache"
        raise InputError(f"keep or options came beside {given}; give them with a method's name")
    return method if isinstance(method, Method) else None


def _task(prompt: str, max_new_tokens: int) -> Task:
    """Return a task without samples or scores: how rows are asked, and how much may be said."""
    metric = Metric("none", lambda said, sample: 0.0)
    return Task("rows", _Nowhere(), metric, prompt, max_new_tokens)


class _Nowhere:
    """A source that has nothing."""

    def samples(self, number: int | None, seed: int) -> Sequence[Sample]:
        """Return no sample."""
        return ()

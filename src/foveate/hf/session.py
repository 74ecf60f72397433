"""The context that gives every `generate` call of a model a fresh compressed cache."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from foveate.cache.report import CacheReport
from foveate.errors import CacheError, MethodError
from foveate.hf.attach import Lease
from foveate.hf.cache import CompressedCache
from foveate.hf.storage import Form
from foveate.hf.support import check_method
from foveate.method import Method
from foveate.methods import method as method_named


class Session:
    """What happened inside a `compress` context: one report for every call."""

    def __init__(self, lease: Lease, method: Method, settings: Mapping[str, Any]) -> None:
        self.method = method
        self.reports: list[CacheReport] = []
        self._lease = lease
        self._settings = settings

    @property
    def report(self) -> CacheReport:
        """Return the last call's report; raises `CacheError` before the first call."""
        if not self.reports:
            raise CacheError("nothing was generated in this context yet; call model.generate first")
        return self.reports[-1]

    def new_cache(self) -> CompressedCache:
        """Return a fresh cache for one call."""
        return CompressedCache(self._lease, self.method, **self._settings)

    def record(self, cache: CompressedCache) -> None:
        """Take the report of a finished call."""
        self.reports.append(cache.report())


@contextmanager
def compress(
    model: Any,
    method: Method | str,
    *,
    storage: str = "dense",
    stream: bool = True,
    quantized: str | None = None,
    **options: Any,
) -> Iterator[Session]:
    """Compress the cache of every `model.generate` call inside, and restore the model after.

    A bare forward pass that would make a cache gets a compressed one too. The reports stay in the
    session as long as it lives.

    `method` is a `Method`, or a preset's name with its options; `storage`, `stream` and `quantized`
    are those of `CompressedCache`. Raises `MethodError` for unknown names or options,
    `UnsupportedModel` for models without a seam, and `CacheError` if the model is in such a context
    already.
    """
    if isinstance(method, str):
        method = method_named(method, **options)
    elif options:
        raise MethodError(
            f"options {sorted(options)} came beside a complete method; give them to the preset"
        )
    check_method(method)
    Form(storage, quantized).check(method)  # raises before anything is put on the model
    settings = {"storage": storage, "stream": stream, "quantized": quantized}
    lease = Lease(model)
    attachment = lease.attachment
    if attachment.session is not None:
        lease.release()
        raise CacheError(
            f"this {attachment.model_name} is inside a compress context already; leave that one "
            "first, or give generate a CompressedCache of its own"
        )
    session = Session(lease, method, settings)
    attachment.session = session
    try:
        yield session
    finally:
        attachment.session = None
        lease.release()

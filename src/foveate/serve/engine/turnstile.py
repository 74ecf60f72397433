"""A call in a thread of its own that runs one forward pass of a model each time it is told to.

So `generate` of transformers reads a long prompt in chunks, and others decode in between, while no
two threads ever run at once: whoever tells a call to go on waits until it stands at the next pass.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Paced", "Turnstile"]

_local = threading.local()


class Left(BaseException):
    """Raised at the turnstile, in a call that nobody waits for any more."""


class Paced:
    """A call that stops before every forward pass of its model, in a thread of its own.

    `logits` [B, V] are those of the last pass, `passes` counts them, `top` is the highest position
    that a pass was given, None where passes were given none.
    """

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call
        self._go, self._stands = threading.Semaphore(0), threading.Event()
        self._thread = threading.Thread(target=self._run, name="foveate-prompt", daemon=True)
        self._left = False
        self.ended = False
        self.error: BaseException | None = None
        self.passes = 0
        self.logits: Tensor | None = None
        self.top: Tensor | None = None
        self.deltas: list[Any] | None = None  # what the model remembers of this call's positions
        self.at: Turnstile | None = None  # where it stops

    def proceed(self) -> None:
        """Let the call run up to its next pass, or to its end."""
        if self.ended:
            return
        self._stands.clear()
        if self._thread.ident is None:
            self._thread.start()
        else:
            self._go.release()
        try:
            self._stands.wait()
        except BaseException:  # an interrupt: nobody may run beside the pass, which goes on
            self._stands.wait()
            raise

    def leave(self) -> None:
        """Have the call end where it stands."""
        self._left = True
        if self._thread.ident is None:
            self.ended = True
        while not self.ended:
            self.proceed()

    def stand(self) -> None:
        """Stop until the call is told to go on; called by its thread, before a pass."""
        self._stands.set()
        self._go.acquire()
        if self._left:
            raise Left

    def _run(self) -> None:
        _local.paced = self
        try:
            self._call()
        except Left:
            pass
        except BaseException as error:
            self.error = error
        finally:
            self.ended = True
            self._stands.set()


class Turnstile:
    """What stands before the forward pass of a model while an engine has it."""

    def __init__(self, model: nn.Module) -> None:
        self._modules = [x for x in model.modules() if "rope_deltas" in vars(x)]
        self._hooks = [
            model.register_forward_pre_hook(self._before, with_kwargs=True, prepend=True),
            model.register_forward_hook(self._after),
        ]

    def proceed(self, paced: Paced) -> None:
        """Let a call run up to its next pass, what the model remembers being its own."""
        with self.forgetting():
            self._remember(paced.deltas or self._deltas())
            paced.at = self
            try:
                paced.proceed()
            finally:
                paced.deltas = self._deltas()

    @contextmanager
    def forgetting(self) -> Iterator[None]:
        """Have the model remember afterwards what it remembers now."""
        held = self._deltas()
        try:
            yield
        finally:
            self._remember(held)

    def delta(self, paced: Paced) -> int:
        """Return how far positions lie from the count of tokens, where the model says so."""
        found = [x for x in paced.deltas or [] if isinstance(x, Tensor)]
        return int(found[0].max()) if found else 0

    def close(self) -> None:
        """Take the turnstile away."""
        for hook in self._hooks:
            hook.remove()

    def _deltas(self) -> list[Any]:
        return [module.rope_deltas for module in self._modules]

    def _remember(self, deltas: list[Any]) -> None:
        for module, delta in zip(self._modules, deltas, strict=True):
            module.rope_deltas = delta

    def _here(self) -> Paced | None:
        """Return the paced call that this thread is, if it stops here."""
        paced: Paced | None = getattr(_local, "paced", None)
        return paced if paced is not None and paced.at is self else None

    def _before(self, model: nn.Module, args: Any, kwargs: Mapping[str, Any]) -> None:
        """Stop a paced call, and note where its tokens are placed."""
        paced = self._here()
        if paced is None:
            return
        paced.stand()
        places = kwargs.get("position_ids")
        if places is not None:
            # of four planes the first counts tokens, the others say where they are
            top = (places[1:] if places.ndim == 3 and len(places) == 4 else places).max()
            paced.top = top if paced.top is None else torch.maximum(paced.top, top)

    def _after(self, model: nn.Module, args: Any, output: Any) -> None:
        """Note what a pass of a paced call says."""
        paced = self._here()
        if paced is not None:
            paced.passes += 1
            paced.logits = output.logits[:, -1].clone()  # and not those of all tokens

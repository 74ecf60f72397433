"""Where answers come from: the model by a digest of what it knows, the code, the machine."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import foveate
from foveate.errors import InputError
from foveate.eval.record import Run

__all__ = ["Identity", "check_asked", "origin"]


@dataclass(frozen=True)
class Identity:
    """A model as logs name it; `revision` is its commit on the hub, or a digest of its weights."""

    model: str
    revision: str
    dtype: str
    device: str
    attention: str

    @staticmethod
    def of(loaded: Any) -> Identity:
        """Return the identity of a loaded model."""
        model = loaded.model
        commit = getattr(model.config, "_commit_hash", None)
        return Identity(
            model=_named(loaded.name),
            revision=commit or digest(model),
            dtype=str(model.dtype).removeprefix("torch."),
            device=str(model.device),
            attention=str(getattr(model.config, "_attn_implementation", None)),
        )


def _named(name: str) -> str:
    """Return what logs call a model of that id or folder."""
    folder = Path(name).expanduser()
    return folder.resolve().name if folder.is_dir() else name


def check_asked(run: Run, path: Path, model: str | None, dtype: str, attn: str | None) -> None:
    """Raise `InputError` if a run was of another model than that of these words, which load it.

    A log to which nothing is added needs no model, so that nothing else would notice. Kernels of
    the hub ("kernels-community/flash-attn2") stand for whatever name transformers took them for.
    """
    attention = run.settings["attention"]
    asked = {
        "model": (_named(model or "embedded"), run.model),
        "dtype": (run.settings["dtype"] if dtype == "auto" else dtype, run.settings["dtype"]),
        "attention": (attention if attn is None or "/" in attention else attn, attention),
    }
    for what, (now, before) in asked.items():
        if now != before:
            raise InputError(
                f"{path}: begun with {what} {before}, and now it is {now}; give what it was begun "
                "with, or another file"
            )


def digest(model: torch.nn.Module) -> str:
    """Return a short digest of all names, shapes and numbers that a model consists of."""
    summary = hashlib.blake2b(digest_size=8)
    for name, tensor in sorted(model.state_dict().items()):
        summary.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        summary.update(tensor.detach().reshape(-1).view(torch.uint8).cpu().numpy())
    return f"weights {summary.hexdigest()}"


def origin(device: str) -> dict[str, Any]:
    """Return commit, date, versions and machine, as a log wants them."""
    from foveate.bench import result

    return result.origin(Path(foveate.__file__).resolve().parent, device)

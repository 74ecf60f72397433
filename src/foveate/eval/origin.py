"""Where answers come from: the model by a digest of what it knows, the code, the machine."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import foveate

__all__ = ["Identity", "origin"]


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
        model, folder = loaded.model, Path(loaded.name).expanduser()
        commit = getattr(model.config, "_commit_hash", None)
        return Identity(
            model=folder.resolve().name if folder.is_dir() else loaded.name,
            revision=commit or digest(model),
            dtype=str(model.dtype).removeprefix("torch."),
            device=str(model.device),
            attention=str(getattr(model.config, "_attn_implementation", None)),
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

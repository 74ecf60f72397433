"""Which heads of a model other processes hold, as transformers splits it (tensor parallelism)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from foveate.errors import UnsupportedModel
from foveate.group import HeadGroup
from foveate.hf.support import head_counts

__all__ = ["MeshGroup", "head_group"]

KEYS = ("k_proj", "qkv_proj", "query_key_value")  # what makes keys, alone or fused with the rest


@dataclass(frozen=True)
class MeshGroup:
    """The processes of one dimension of a device mesh."""

    processes: Any  # a process group of torch.distributed
    rank: int
    size: int

    def __deepcopy__(self, memo: dict[int, Any]) -> MeshGroup:
        return self

    def gather(self, part: Tensor, dim: int) -> Tensor:
        """Return what all processes brought, side by side; every one brings the same shape."""
        part = part.contiguous()
        parts = [torch.empty_like(part) for _ in range(self.size)]
        torch.distributed.all_gather(parts, part, group=self.processes)
        return torch.cat(parts, dim)


def head_group(model: nn.Module) -> HeadGroup | None:
    """Return the processes that share the model's heads, or None if all heads are here.

    Raises `UnsupportedModel` where key-value heads do not divide into the processes, and where some
    layers are in other processes.
    """
    mesh: Any = getattr(model, "_device_mesh", None)
    dimensions = getattr(mesh, "mesh_dim_names", None) or ()
    if "pp" in dimensions and mesh["pp"].size() > 1:
        raise UnsupportedModel(
            f"{type(model).__name__} has its layers in several processes (pipeline parallelism), "
            "and budgets are shared by all layers; split it by heads (tensor parallelism) instead"
        )
    size = getattr(model, "_tp_size", None) or 1
    if size == 1 or not splits_heads(getattr(model, "_tp_plan", None) or {}):
        return None
    config: Any = model.config
    _, _, kv_heads = head_counts(config.get_text_config(decoder=True))
    if isinstance(kv_heads, int) and kv_heads % size:
        raise UnsupportedModel(
            f"{type(model).__name__} has {kv_heads} key-value heads, and {size} processes share "
            f"them; start a number of processes that divides {kv_heads}"
        )
    mesh = mesh["tp"] if "tp" in dimensions else mesh
    return MeshGroup(mesh.get_group(), mesh.get_local_rank(), size)


def splits_heads(plan: Mapping[str, str]) -> bool:
    """Return whether a plan leaves every process with keys of some heads only."""
    return any(
        name.rpartition(".")[2] in KEYS and style.endswith("colwise")
        for name, style in plan.items()
    )

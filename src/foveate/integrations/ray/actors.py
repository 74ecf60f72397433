"""What Ray gives an actor."""

from __future__ import annotations

import sys

import torch

__all__ = ["use_threads"]


def use_threads(number: int | None = None) -> None:
    """Let torch use so many threads; if not given, as many as the Ray actor has processors."""
    if number := number or _processors():
        torch.set_num_threads(number)


def _processors() -> int | None:
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return None
    context = ray.get_runtime_context()
    if context.get_actor_id() is None:  # a driver
        return None
    return int(context.get_assigned_resources().get("CPU", 0)) or None

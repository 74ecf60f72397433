"""The few operations that carry the library, each with a plain-loop twin of the same signature."""

from foveate.kernels.allocate import allocate
from foveate.kernels.column_stats import column_stats

__all__ = ["allocate", "column_stats"]

"""Sums and maxima of the columns of softmax attention, without the whole matrix."""

from foveate.kernels.column_stats.blocked import column_stats, row_blocks

__all__ = ["column_stats", "row_blocks"]

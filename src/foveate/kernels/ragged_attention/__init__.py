"""Attention of a few queries over segments of unequal length and a dense tail, without padding."""

from foveate.kernels.ragged_attention.layout import Layout
from foveate.kernels.ragged_attention.split import ragged_attention

__all__ = ["Layout", "ragged_attention"]

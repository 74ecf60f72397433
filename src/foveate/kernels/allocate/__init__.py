"""Whole numbers in proportion to weights, under caps and floors, with an exact total."""

from foveate.kernels.allocate.waterfill import allocate, round_to, water_level

__all__ = ["allocate", "round_to", "water_level"]

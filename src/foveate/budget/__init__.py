"""BUDGET: how many candidates stay, per layer, row and key-value head."""

from foveate.budget.layers import LayerShares
from foveate.budget.schedule import Pyramid, Uniform

__all__ = ["LayerShares", "Pyramid", "Uniform"]

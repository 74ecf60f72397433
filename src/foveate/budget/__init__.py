"""BUDGET: how many candidates stay, per layer, row and key-value head."""

from foveate.budget.layers import LayerShares
from foveate.budget.level import Level
from foveate.budget.schedule import Pyramid, Uniform
from foveate.budget.sizes import Sizes
from foveate.budget.union import Union

__all__ = ["LayerShares", "Level", "Pyramid", "Sizes", "Uniform", "Union"]

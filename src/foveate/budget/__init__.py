"""BUDGET: how many candidates stay, per layer, row and key-value head."""

from foveate.budget.dense import Dense
from foveate.budget.even import Even
from foveate.budget.heads import PooledHeads
from foveate.budget.joint import Joint
from foveate.budget.layers import LayerShares
from foveate.budget.level import Level
from foveate.budget.reach import Reach
from foveate.budget.schedule import Pyramid, Steps, Uniform
from foveate.budget.sizes import Sizes
from foveate.budget.table import HeadTable
from foveate.budget.union import Union

__all__ = [
    "Dense",
    "Even",
    "HeadTable",
    "Joint",
    "LayerShares",
    "Level",
    "PooledHeads",
    "Pyramid",
    "Reach",
    "Sizes",
    "Steps",
    "Uniform",
    "Union",
]

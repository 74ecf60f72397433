"""SCORE: how much every candidate is worth."""

from foveate.score.attention import Attention
from foveate.score.baseline import Constant, Random, Recency
from foveate.score.density import Density
from foveate.score.elite import Elite
from foveate.score.expected import Expected
from foveate.score.fluctuation import Fluctuation
from foveate.score.grounding import Grounded
from foveate.score.mixture import Mixed
from foveate.score.nearby import Nearby
from foveate.score.norms import KeyDifference, KeyNorm, ValueNorm
from foveate.score.order import PerImage, Spread
from foveate.score.peaks import Peaks
from foveate.score.pool import Pooled
from foveate.score.shifting import Shifting
from foveate.score.statistics import Described
from foveate.score.valued import Valued
from foveate.score.video import Changing, Smoothed
from foveate.score.window import AllText, LastRows, LastVisual

__all__ = [
    "AllText",
    "Attention",
    "Changing",
    "Constant",
    "Density",
    "Described",
    "Elite",
    "Expected",
    "Fluctuation",
    "Grounded",
    "KeyDifference",
    "KeyNorm",
    "LastRows",
    "LastVisual",
    "Mixed",
    "Nearby",
    "Peaks",
    "PerImage",
    "Pooled",
    "Random",
    "Recency",
    "Shifting",
    "Smoothed",
    "Spread",
    "ValueNorm",
    "Valued",
]

"""REDUCE: what becomes of the tokens that do not stay."""

from foveate.reduce.evict import Evict
from foveate.reduce.merge import Merge

__all__ = ["Evict", "Merge"]

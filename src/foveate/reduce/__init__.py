"""REDUCE: what becomes of the tokens that do not stay."""

from foveate.reduce.bucket import Buckets
from foveate.reduce.evict import Evict
from foveate.reduce.fold import Fold
from foveate.reduce.merge import Merge

__all__ = ["Buckets", "Evict", "Fold", "Merge"]

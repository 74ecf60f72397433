"""WHEN: at which events the cache is compressed, and how slots are ranked while decoding."""

from foveate.schedule.events import AfterPrefill, WhileDecoding
from foveate.schedule.follow import Accumulated, LatestRow, OldestFirst, Steady

__all__ = [
    "Accumulated",
    "AfterPrefill",
    "LatestRow",
    "OldestFirst",
    "Steady",
    "WhileDecoding",
]

"""WHEN: at which events the cache is compressed, and how slots are ranked while decoding."""

from foveate.schedule.events import AfterPrefill, WhileDecoding

__all__ = ["AfterPrefill", "WhileDecoding"]

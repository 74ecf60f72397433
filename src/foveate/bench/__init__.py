"""Measures what compression costs in prefill and saves in decode, beside native caches."""

from foveate.bench.cases import CASES, CLOCKS, Setting, measure
from foveate.bench.gate import root, verify
from foveate.bench.result import Spread, record

__all__ = ["CASES", "CLOCKS", "Setting", "Spread", "measure", "record", "root", "verify"]

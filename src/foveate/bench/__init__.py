"""Measures what compression costs in prefill and saves in decode, and what its sums cost."""

from foveate.bench.cases import CASES, CLOCKS, Setting, measure
from foveate.bench.gate import root, verify
from foveate.bench.result import Spread, record
from foveate.bench.sums import SumsSetting, measure_sums, sums_table

__all__ = [
    "CASES",
    "CLOCKS",
    "Setting",
    "Spread",
    "SumsSetting",
    "measure",
    "measure_sums",
    "record",
    "root",
    "sums_table",
    "verify",
]

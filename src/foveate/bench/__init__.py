"""Measures what compression costs in prefill and saves in decode, and what all rows cost."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from foveate.bench.cases import CASES, CLOCKS, Setting, measure
from foveate.bench.gate import root, verify
from foveate.bench.result import Spread, record, table
from foveate.bench.rows import VARIANTS, RowsSetting, measure_rows, rows_table
from foveate.bench.sums import SumsSetting, measure_sums, sums_table

__all__ = [
    "CASES",
    "CLOCKS",
    "SUBJECTS",
    "RowsSetting",
    "Setting",
    "Spread",
    "Subject",
    "SumsSetting",
    "measure",
    "measure_rows",
    "measure_sums",
    "record",
    "root",
    "rows_table",
    "sums_table",
    "verify",
]


@dataclass(frozen=True)
class Subject:
    """Something to measure: how, how often it ticks, and the table of its numbers."""

    measure: Callable[[Any, Callable[[str], None]], dict[str, Any]]
    ticks: Callable[[Any], int]
    table: Callable[[dict[str, Any], str], dict[str, Any]]


SUBJECTS = {
    "cache": Subject(measure, lambda setting: len(CASES) * (setting.rounds + 1), table),
    "sums": Subject(measure_sums, lambda setting: len(setting.tokens) * setting.rounds, sums_table),
    "rows": Subject(measure_rows, lambda setting: len(VARIANTS), rows_table),
}

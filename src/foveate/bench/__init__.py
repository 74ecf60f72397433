"""Measures what compression costs in prefill, saves in decode, and holds in memory."""

from foveate.bench.beside import papers_chart, papers_table
from foveate.bench.decode import (
    decode_chart,
    decode_goals,
    decode_setting,
    decode_table,
    decode_ticks,
    measure_decode,
)
from foveate.bench.gate import root, verify
from foveate.bench.papers import measure_papers, papers_setting, papers_ticks
from foveate.bench.peak import measure_peak, peak_chart, peak_goals, peak_setting, peak_table
from foveate.bench.peers import (
    measure_peers,
    peers_chart,
    peers_setting,
    peers_table,
    peers_ticks,
)
from foveate.bench.prefill import (
    measure_prefill,
    prefill_chart,
    prefill_goals,
    prefill_setting,
    prefill_table,
)
from foveate.bench.result import Spread, record
from foveate.bench.rows import VARIANTS, measure_rows, rows_chart, rows_setting, rows_table
from foveate.bench.serve import (
    measure_serve,
    serve_chart,
    serve_setting,
    serve_table,
    serve_ticks,
)
from foveate.bench.subject import Chart, Goal, Line, Panel, Result, Subject
from foveate.bench.sums import measure_sums, sums_chart, sums_setting, sums_table

__all__ = [
    "SUBJECTS",
    "Chart",
    "Goal",
    "Line",
    "Panel",
    "Spread",
    "Subject",
    "completed",
    "record",
    "root",
    "verify",
]

SUBJECTS = {
    "decode": Subject(
        about="time of a step over the length of what is kept",
        setting=decode_setting,
        measure=measure_decode,
        ticks=decode_ticks,
        table=decode_table,
        chart=decode_chart,
        goals=decode_goals,
        heeds=("keep", "kv_heads", "rounds", "dtype"),
    ),
    "prefill": Subject(
        about="what every preset adds to reading a prompt",
        setting=prefill_setting,
        measure=measure_prefill,
        ticks=lambda setting: len(setting.tokens) * len(setting.presets) * setting.rounds,
        table=prefill_table,
        chart=prefill_chart,
        goals=prefill_goals,
        heeds=("keep", "kv_heads", "rounds", "dtype", "presets", "tokens"),
    ),
    "peak": Subject(
        about="bytes of keys and values held after every layer of a prompt",
        setting=peak_setting,
        measure=measure_peak,
        ticks=lambda setting: 2 * len(setting.presets) + 1,
        table=peak_table,
        chart=peak_chart,
        goals=peak_goals,
        heeds=("keep", "kv_heads", "dtype", "presets"),
    ),
    "sums": Subject(
        about="attention's column sums over all rows, one layer",
        setting=sums_setting,
        measure=measure_sums,
        ticks=lambda setting: len(setting.tokens) * setting.rounds,
        table=sums_table,
        chart=sums_chart,
        heeds=("rounds", "dtype", "tokens"),
    ),
    "rows": Subject(
        about="prefill with scores over all rows, beside the whole matrix",
        setting=rows_setting,
        measure=measure_rows,
        ticks=lambda setting: len(VARIANTS),
        table=rows_table,
        chart=rows_chart,
        heeds=("keep", "kv_heads", "rounds", "dtype"),
    ),
    "papers": Subject(
        about="grids of the papers' tables, beside what they print and what bytes alone give",
        setting=papers_setting,
        measure=measure_papers,
        ticks=papers_ticks,
        table=papers_table,
        chart=papers_chart,
        heeds=("rounds", "dtype", "tokens", "grids"),
    ),
    "peers": Subject(
        about="the same methods by kvpress, in an environment of its own",
        setting=peers_setting,
        measure=measure_peers,
        ticks=peers_ticks,
        table=peers_table,
        chart=peers_chart,
        heeds=("keep", "rounds", "dtype", "peer_python"),
    ),
    "serve": Subject(
        about="how many users fit into the same bytes of keys and values",
        setting=serve_setting,
        measure=measure_serve,
        ticks=serve_ticks,
        table=serve_table,
        chart=serve_chart,
        heeds=("keep", "rounds", "dtype"),
    ),
}


def completed(result: Result) -> Result:
    """Return a record of `record` with its table, and its goals, met or missed."""
    subject = SUBJECTS[result["what"]]
    goals = [goal.to_dict() for goal in subject.goals(result)]
    return {**result, "goals": goals, "table": subject.table(result)}

"""Draws what a subject's numbers say as one SVG file, alike on every run.

Greys and colours are of middle lightness and the ground is clear, so that a chart can be read on a
light page and on a dark one. The file names the hash of the JSON that it was drawn from.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foveate.bench.subject import Chart, Line, Panel
from foveate.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw", "draw_file", "drawn_from", "fingerprint"]

GREY = "#7b828c"
COLOURS = ("#2f81c1", "#d9730d", "#3a9a5b", "#b455b0", "#c2504a", "#8a7d2c", "#4aa3a3", "#8c6bd1")
MARKS = "osD^vPX*"
STYLE: Any = {
    "svg.hashsalt": "foveate",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), GREY
    ),
    "grid.color": GREY,
}


def draw_file(path: Path, target: Path) -> None:
    """Draw the chart of a subject's JSON file as SVG.

    Raises `InputError` for a file that is none of the benchmark's, `ImportError` with the cure
    where matplotlib is missing.
    """
    from foveate.bench import SUBJECTS

    try:
        text = path.read_text()
        result = json.loads(text)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read ({error}); give a JSON file that `foveate bench` wrote"
        ) from error
    what = result.get("what") if isinstance(result, dict) else None
    if what not in SUBJECTS:
        raise InputError(
            f"{path} holds no numbers of {', '.join(SUBJECTS)}; "
            "give a JSON file that `foveate bench` wrote"
        )
    draw(SUBJECTS[what].chart(result), target, fingerprint(text))


def fingerprint(text: str) -> str:
    """Return the hash that a chart names of the JSON text it was drawn from."""
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()[:32]


def drawn_from(path: Path) -> str | None:
    """Return the hash of the JSON that an SVG file was drawn from, or None if it names none."""
    found = re.search(r"sha256:[0-9a-f]{32}", path.read_text())
    return found and found[0]


def draw(chart: Chart, path: Path, source: str) -> None:
    """Write a chart as SVG; `source` is the fingerprint of its numbers."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "charts are drawn with matplotlib, which is not installed; "
            "`pip install 'foveate[charts]'` brings it"
        ) from error

    rows = max((len(panel.names) for panel in chart.panels), default=0)
    across = min(len(chart.panels), 3)
    down = -(-len(chart.panels) // across)
    with rc_context(STYLE):
        size = (max(6.4, 3.6 * across), down * max(2.6, 1.0 + 0.23 * rows) + 0.8)
        figure = Figure(figsize=size, layout="constrained")
        named: tuple[str, ...] = ()
        for place, panel in enumerate(chart.panels):
            _panel(figure.add_subplot(down, across, place + 1), panel, panel.names != named)
            named = panel.names
        figure.suptitle(chart.title, fontsize=10)
        handles = _handles(figure.axes)
        if len(handles) > 1:
            figure.legend(
                [*handles.values()], [*handles], loc="outside lower center", ncols=across + 1
            )
        metadata: dict[str, Any] = {"Date": None, "Creator": "foveate bench", "Source": source}
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="svg", transparent=True, metadata=metadata)
    text = path.read_text()
    path.write_text("\n".join(line.rstrip() for line in text.splitlines()) + "\n")


def _handles(axes: list[Axes]) -> dict[str, Any]:
    """Return one drawn line of every name, for the legend."""
    found: dict[str, Any] = {}
    for part in axes:
        for handle, name in zip(*part.get_legend_handles_labels(), strict=True):
            found.setdefault(name, handle)
    return found


def _panel(axes: Axes, panel: Panel, named: bool) -> None:
    """Draw one panel; rows are `named`, unless the panel beside it does that."""
    for number, line in enumerate(panel.lines):
        _line(axes, line, number, bool(panel.names))
    for name, value in panel.rules.items():
        mark, at = (axes.axvline, (value, 1.0)) if panel.names else (axes.axhline, (1.0, value))
        mark(value, color=GREY, linewidth=0.9, linestyle=(0, (4, 3)))
        axes.annotate(
            name,
            at,
            xycoords=("data", "axes fraction") if panel.names else ("axes fraction", "data"),
            ha="left" if panel.names else "right",
            va="bottom",
            fontsize=7,
        )
    _scales(axes, panel)
    if panel.names:
        axes.set_yticks(range(len(panel.names)), panel.names if named else [""] * len(panel.names))
        axes.set_ylim(len(panel.names) - 0.5, -0.5)
    axes.set_title(panel.title, fontsize=9, pad=12 if panel.rules and panel.names else 6)
    axes.set_xlabel(panel.across)
    axes.set_ylabel(panel.up)


def _scales(axes: Axes, panel: Panel) -> None:
    """Set linear or logarithmic scales, with plain numbers where something was measured."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    for letter, axis in (("x", axes.xaxis), ("y", axes.yaxis)):
        if letter not in panel.log:
            continue
        (axes.set_xscale if letter == "x" else axes.set_yscale)("log")
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
        axis.set_minor_formatter(NullFormatter())
    places = sorted({x for line in panel.lines for x in line.x})
    if panel.names or not places:
        return
    if "x" in panel.log and len(places) < 9:
        axes.set_xticks(places, [f"{place:,.0f}" for place in places])
        axes.set_xticks([], minor=True)
    elif all(place == round(place) for place in places):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _line(axes: Axes, line: Line, number: int, in_rows: bool) -> None:
    """Draw one variant: connected points, or loose ones where rows have names."""
    colour = COLOURS[number % len(COLOURS)]
    look: Any = {"color": colour, "marker": MARKS[number % len(MARKS)], "markersize": 4}
    if in_rows:
        axes.plot(line.x, line.y, linestyle="none", label=line.name, **look)
        if line.low:
            axes.hlines(line.y, line.low, line.high, color=colour, linewidth=1, alpha=0.6)
        return
    axes.plot(
        line.x,
        line.y,
        label=line.name,
        linestyle="none" if line.loose else "--" if line.dashed else "-",
        linewidth=1.3,
        **look,
    )
    if line.low:
        axes.fill_between(line.x, line.low, line.high, color=colour, alpha=0.15, linewidth=0)

"""Charts of evaluations: scores over the budget, and what keys, budgets and attention look like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from foveate.bench.subject import Chart, Line, Panel
from foveate.eval.entry import FULL
from foveate.eval.judging.compared import joined, percents
from foveate.eval.judging.results import Scored, averaged, scored
from foveate.eval.showing.looks import KEEP, Looks
from foveate.eval.showing.tables import printed_table
from foveate.eval.studies import printed
from foveate.eval.study import Study, study

__all__ = ["PICTURES", "charts", "curves", "looked"]

PICTURES = "pictures"  # the name of what is no study: looks at single prompts
DIVERGING = ("long-256", "row-256", "column-256", "reverse-256")
KEEPS = (0.1, 0.01)


def charts(result: Mapping[str, Any]) -> dict[str, Chart]:
    """Return the charts of an evaluation's JSON by what is added to its name, perhaps none."""
    if result["study"] != PICTURES:
        drawn = study(result["study"])
        return {"": curves(drawn, scored(result))} if drawn.picture or drawn.curves else {}
    return {
        "-redundancy": _redundancy(result),
        "-coverage": _coverage(result["coverage"]),
        "-budgets": _budgets(result["budgets"]),
        "-attention": _attention(result["attention"]),
    }


def looked(looks: Looks) -> dict[str, Any]:
    """Return the JSON of what is seen, tables included; where it comes from is for the caller."""
    measured = looks.measured()
    apart = looks.divergences(DIVERGING, KEEPS)
    return {
        "study": PICTURES,
        "setting": {"task": looks.task, "prompts": looks.number, "seed": looks.seed, "keep": KEEP},
        **measured,
        "divergences": apart,
        "tables": tables(measured, apart, looks.number),
    }


def tables(
    measured: Mapping[str, Any], apart: Mapping[str, Any], prompts: int
) -> dict[str, dict[str, Any]]:
    """Return the tables beside the pictures."""
    far = [
        [kept, pair, *(f"{by_task[name]:.3f}" for name in DIVERGING)]
        for kept, pairs in apart.items()
        for pair, by_task in pairs.items()
    ]
    near = sorted(measured["distance"].items(), key=lambda item: item[1])
    return {
        "table-14": {
            "title": f"Jensen-Shannon divergence of layer budgets ({prompts} prompts a task)",
            "columns": ["kept", "layer budgets", *DIVERGING],
            "rows": far,
        },
        "distance": {
            "title": f"Distance of a visual key to the nearest kept one, {KEEP:.0%} kept",
            "columns": ["method", "1 - cosine"],
            "rows": [[name, f"{value:.3f}"] for name, value in near],
        },
        printed.AIRCACHE_14.name: printed_table(printed.AIRCACHE_14),
    }


def curves(drawn: Study, cells: Sequence[Scored]) -> Chart:
    """Return a panel for each task, and a line over the budgets for each method.

    All methods are drawn if the study names none, what `keep="auto"` comes to where it has that.
    """
    if drawn.curves:
        return _calibration(drawn, cells)
    names = drawn.picture or [entry.label for entry in drawn.entries if entry.label != FULL.label]
    whole = all(isinstance(keep, int) for keep in drawn.keeps)
    panels = []
    for task in drawn.tasks:
        here = [cell for cell in cells if cell.cell.task == task]
        lines = tuple(_line(name, _budgets_of(name, here), drawn.draws) for name in names)
        panels.append(
            Panel(
                task,
                drawn.across or ("tokens kept" if whole else "kept, %"),
                "score, %" if drawn.draws == "score" else drawn.draws,
                tuple(line for line in lines if line.x),
                rules=_rules(here) if drawn.draws == "score" else {},
                log="x",
            )
        )
    return Chart(drawn.answers, tuple(panel for panel in panels if panel.lines))


def _calibration(drawn: Study, cells: Sequence[Scored]) -> Chart:
    """Return what is kept and what is right over the share of attention that was asked for."""
    named: dict[str, list[Scored]] = {}
    for cell in cells:
        named.setdefault(cell.cell.entry, []).append(cell)
    found = {
        name: {100 * share: named[entry] for share, entry in places.items() if entry in named}
        for name, places in drawn.curves.items()
    }
    panels = (
        Panel(
            "",
            "attention asked for, %",
            "share of visual tokens kept" if draws == "kept" else "right, %",
            tuple(_line(name, mine, draws) for name, mine in found.items() if mine),
            rules={} if draws == "kept" else _rules(cells),
        )
        for draws in ("kept", "score")
    )
    return Chart(drawn.answers, tuple(panels))


def _rules(cells: Sequence[Scored]) -> dict[str, float]:
    """Return the full cache's score, if it was asked."""
    full = joined([cell for cell in cells if cell.cell.entry == FULL.label])
    return {"full cache": percents(full)[0]} if _answered(full) else {}


def _answered(scores: Sequence[float | None]) -> bool:
    return any(score is not None for score in scores)


def _budgets_of(name: str, cells: Sequence[Scored]) -> dict[float, list[Scored]]:
    """Return one method's cells by budget."""
    mine: dict[float, list[Scored]] = {}
    for cell in cells:
        if cell.cell.entry == name:
            mine.setdefault(_place(cell), []).append(cell)
    return mine


def _line(name: str, mine: Mapping[float, Sequence[Scored]], draws: str) -> Line:
    """Return scores of cells by their place, with intervals, or one of their measures."""
    if draws != "score":
        told = {place: [cell.shown(draws) for cell in mine[place]] for place in sorted(mine)}
        known = {
            place: averaged(draws, [value for value in some if value is not None])
            for place, some in told.items()
            if None not in some
        }
        return Line(name, tuple(known), tuple(known.values()))
    x = tuple(place for place in sorted(mine) if _answered(joined(mine[place])))
    found = [percents(joined(mine[place])) for place in x]
    middle, low, high = (tuple(values[i] for values in found) for i in range(3))
    return Line(name, x, middle, low, high)


def _place(cell: Scored) -> float:
    """Return where on its axis a budget is: shares in percent, numbers as they are."""
    keep = cell.cell.keep
    return float(keep) * (100 if "." in keep else 1)


def _redundancy(result: Mapping[str, Any]) -> Chart:
    """Return how alike the keys of every head are, a row for each layer."""
    panels = []
    for kind in ("visual", "text"):
        layers = result["redundancy"][kind]
        names = tuple(f"layer {n}" for n in range(len(layers)))
        heads = tuple(
            Line(
                f"key-value head {h}",
                tuple(layer[h] for layer in layers),
                tuple(float(n) for n in range(len(layers))),
            )
            for h in range(len(layers[0]))
        )
        panels.append(Panel(f"{kind} tokens", "mean cosine of two keys", "", heads, names))
    return Chart(
        f"How alike keys are, mean of {result['setting']['prompts']} prompts", tuple(panels)
    )


def _coverage(cover: Mapping[str, Any]) -> Chart:
    """Return a panel for each method: all visual keys of one head, and those it keeps."""
    points = cover["points"]
    panels = []
    for name, kept in cover["kept"].items():
        some = [points[i] for i in kept]
        lines = tuple(
            Line(label, tuple(x for x, _ in part), tuple(y for _, y in part), loose=True)
            for label, part in (("visual keys", points), ("kept", some))
        )
        panels.append(
            Panel(f"{name}: {len(some)} of {len(points)}", "first axis", "second axis", lines)
        )
    title = (
        f"Visual keys of layer {cover['layer']}, key-value head {cover['head']}, in the plane of "
        f"their two main axes ({cover['variance']:.0%} of the variance)"
    )
    return Chart(title, tuple(panels))


def _budgets(budgets: Mapping[str, Sequence[float]]) -> Chart:
    """Return the visual tokens that each layer keeps, a line for each method."""
    lines = tuple(
        Line(name, tuple(float(n) for n in range(len(layers))), tuple(layers))
        for name, layers in budgets.items()
    )
    panel = Panel("", "layer", "visual tokens kept", lines)
    return Chart(f"Layer budgets where {KEEP:.0%} are kept", (panel,))


def _attention(shares: Mapping[str, Sequence[float]]) -> Chart:
    """Return the shares of attention by layer, a panel for the question and one for the answer."""
    panels = []
    for rows in ("question", "answer"):
        lines = tuple(
            Line(
                name.removeprefix(f"{rows} "),
                tuple(float(n) for n in range(len(layers))),
                tuple(100 * share for share in layers),
            )
            for name, layers in shares.items()
            if name.startswith(rows)
        )
        panels.append(Panel(f"rows of the {rows}", "layer", "share of attention, %", lines))
    return Chart("What is looked at, by layer", tuple(panels))

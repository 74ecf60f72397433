"""Table and chart of `papers`: what was measured, what the paper prints, what bytes alone give."""

from typing import Any

from foveate.bench.published import BYTES, DECODE, GRIDS, PEAK, PREFILL, RATE, TOTAL
from foveate.bench.result import Spread
from foveate.bench.subject import Chart, Line, Panel, Result, Table

SHOWN = {PREFILL: "prefill", DECODE: "decode", BYTES: "cache", TOTAL: "both", PEAK: "peak"}


def papers_table(result: Result) -> Table:
    """Return a row per point and variant, all text, for documents."""
    by = result["setting"]["by"]
    rows = []
    for numbers in result["cases"].values():
        for variant in GRIDS[numbers["grid"]].variants:
            of_paper = numbers["of_paper"]
            begin = [
                numbers["grid"],
                f"{of_paper['batch']} x {of_paper['prompt']:,}",
                variant.label,
            ]
            if "missing" in numbers:
                rows.append([*begin, numbers["missing"], *[""] * 6])
                continue
            ratios, printed = numbers["ratios"][variant.name], numbers["paper"][variant.name]
            cells = {q: _cell(ratios.get(q), printed.get(q)) for q in SHOWN}
            rate = numbers[RATE]
            rows.append(
                [
                    *begin,
                    cells[PREFILL],
                    cells[DECODE],
                    f"{numbers['roofline'][variant.name]:.2f}",
                    f"{rate[variant.over]:,.0f} to {rate[variant.name]:,.0f}",
                    *(cells[q] for q in (BYTES, TOTAL, PEAK)),
                ]
            )
    batch = "batch x prompt" + (f", all but batch / {by}" if by > 1 else "")
    names = ["prefill", "decode", "decode by bytes alone", RATE, "cache", "both times", "peak"]
    return {"columns": ["grid", batch, "kept", *names], "rows": rows}


def _cell(ratio: dict[str, Any] | None, printed: float | None) -> str:
    """Return a ratio with its range, and the paper's behind it."""
    if ratio is None:
        return "-" if printed is None else f"-; paper {printed:.2f}"
    spread = Spread(**ratio)
    text = str(spread) if spread.count > 1 else f"{spread.median:.2f}"
    return text if printed is None else f"{text}; paper {printed:.2f}"


def papers_chart(result: Result) -> Chart:
    """Return the ratios of decoding, or of a whole run, one panel per grid."""
    grids: dict[str, list[dict[str, Any]]] = {}
    for numbers in result["cases"].values():
        if "missing" not in numbers:
            grids.setdefault(numbers["grid"], []).append(numbers)
    panels = tuple(_panel(name, cases) for name, cases in grids.items())
    by = result["setting"]["by"]
    size = "of full size" if by == 1 else f"with widths and prompts divided by {by}"
    return Chart(f"Grids of the papers, models {size}: time over that of the full cache", panels)


def _panel(name: str, cases: list[dict[str, Any]]) -> Panel:
    """Return the ratios of one grid, a row per point and variant."""
    names: list[str] = []
    shown: dict[str, list[tuple[float, float]]] = {}
    spreads: list[Spread] = []
    quantity = DECODE if DECODE in GRIDS[name].points[0].figures else TOTAL
    for numbers in cases:
        of_paper = numbers["of_paper"]
        for variant in GRIDS[name].variants:
            row = len(names)
            names.append(f"{of_paper['batch']} x {of_paper['prompt'] // 1024}k, {variant.label}")
            spread = Spread(**numbers["ratios"][variant.name][quantity])
            spreads.append(spread)
            shown.setdefault("measured", []).append((spread.median, row))
            if quantity in numbers["paper"][variant.name]:
                printed = numbers["paper"][variant.name][quantity]
                shown.setdefault("paper", []).append((printed, row))
            if quantity == DECODE:
                alone = numbers["roofline"][variant.name]
                shown.setdefault("bytes alone", []).append((alone, row))
    lines = []
    for label, points in shown.items():
        x, y = zip(*points, strict=True)
        low, high = (tuple(getattr(s, end) for s in spreads) for end in ("low", "high"))
        lines.append(Line(label, x, y, *((low, high) if label == "measured" else ())))
    across = "time of decoding" if quantity == DECODE else "time of prefill and decoding"
    return Panel(name, across, "", tuple(lines), names=tuple(names), rules={"1": 1.0})

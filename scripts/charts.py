"""Draws docs/charts/NAME.svg from every benchmarks/results/NAME.json of `foveate bench`, or checks.

A chart names the hash of the file it was drawn from. Run without arguments it draws what is out of
date; with --check it only says so.
"""

import argparse
import json
import sys
from pathlib import Path

from foveate.bench.chart import draw_file, drawn_from, fingerprint

ROOT = Path(__file__).resolve().parent.parent


def results(root: Path) -> dict[Path, Path]:
    """Return the JSON files of the benchmark by the charts that belong to them."""
    found = sorted((root / "benchmarks" / "results").glob("*.json"))
    return {
        root / "docs" / "charts" / f"{path.stem}.svg": path
        for path in found
        if "what" in json.loads(path.read_text())
    }


def is_current(chart: Path, path: Path) -> bool:
    """Return whether a chart shows the numbers of a JSON file."""
    return chart.is_file() and drawn_from(chart) == fingerprint(path.read_text())


def main(arguments: list[str], root: Path = ROOT) -> int:
    """Draw or check all charts; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="draw nothing; fail if out of date")
    check = parser.parse_args(arguments).check
    wanted = results(root)
    stale = {chart: path for chart, path in wanted.items() if not is_current(chart, path)}
    lost = sorted(set((root / "docs" / "charts").glob("*.svg")) - set(wanted))
    for chart, path in stale.items():
        if not check:
            draw_file(path, chart)
        says = "out of date, run scripts/charts.py" if check else "drawn"
        print(f"{says}: {chart.relative_to(root)}")
    for chart in lost:
        print(f"{chart.relative_to(root)}: there is no {chart.stem}.json that it shows; remove it")
    return int(bool(lost) or (bool(stale) and check))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Draws docs/charts/NAME.svg from every benchmarks/results/NAME.json of `foveate bench`, or checks.

Of an evaluation it may be several, NAME-coverage.svg and others, or none. A chart names the
hash of the file it was drawn from. Run without arguments it draws what is out of date; with --check
it only says so.
"""

import argparse
import json
import sys
from pathlib import Path

from foveate.bench import SUBJECTS
from foveate.bench.chart import draw, drawn_from, fingerprint
from foveate.bench.subject import Chart

ROOT = Path(__file__).resolve().parent.parent


def charts(path: Path) -> dict[str, Chart]:
    """Return the charts of a JSON file by what is added to its name."""
    result = json.loads(path.read_text())
    if result.get("what") in SUBJECTS:  # other programs measure, too, and draw nothing
        return {"": SUBJECTS[result["what"]].chart(result)}
    if "study" in result:
        from foveate.eval.showing import pictures

        return pictures.charts(result)
    return {}


def wanted(root: Path) -> dict[Path, tuple[Path, Chart]]:
    """Return the files of all charts, what each is drawn from, and what it shows."""
    return {
        root / "docs" / "charts" / f"{path.stem}{more}.svg": (path, chart)
        for path in sorted((root / "benchmarks" / "results").glob("*.json"))
        for more, chart in charts(path).items()
    }


def is_current(chart: Path, path: Path) -> bool:
    """Return whether a chart shows the numbers of a JSON file."""
    return chart.is_file() and drawn_from(chart) == fingerprint(path.read_text())


def main(arguments: list[str], root: Path = ROOT) -> int:
    """Draw or check all charts; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="draw nothing; fail if out of date")
    check = parser.parse_args(arguments).check
    all_charts = wanted(root)
    stale = {
        file: (path, chart)
        for file, (path, chart) in all_charts.items()
        if not is_current(file, path)
    }
    lost = sorted(set((root / "docs" / "charts").glob("*.svg")) - set(all_charts))
    for file, (path, chart) in stale.items():
        if not check:
            draw(chart, file, fingerprint(path.read_text()))
        says = "out of date, run scripts/charts.py" if check else "drawn"
        print(f"{says}: {file.relative_to(root)}")
    for file in lost:
        print(f"{file.relative_to(root)}: there is no {file.stem}.json that it shows; remove it")
    return int(bool(lost) or (bool(stale) and check))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Makes what is committed of evaluations from their logs: JSON with its tables, and CSV.

Without arguments every study is read whose log is runs/eval/STUDY.jsonl, and
benchmarks/results/eval-STUDY.json and .csv are written; where there is no log, tables and CSV are
made anew from the scores that are committed. With --check nothing is written: what differs from
that is told. --pictures looks at the embedded model's keys and attention anew.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from foveate.errors import FoveateError
from foveate.eval.judging.results import dumped, summary
from foveate.eval.log import read_log
from foveate.eval.showing.listed import as_csv
from foveate.eval.showing.pictures import PICTURES, looked
from foveate.eval.showing.pictures import tables as picture_tables
from foveate.eval.showing.tables import tables
from foveate.eval.study import studies, study

ROOT = Path(__file__).resolve().parent.parent


def committed(root: Path, name: str) -> Path:
    """Return where the JSON of a study is."""
    return root / "benchmarks" / "results" / f"eval-{name}.json"


def write(result: dict[str, Any], root: Path) -> Path:
    """Write JSON and CSV of a study from its scores; return where the JSON is."""
    known = study(result["study"])
    path = committed(root, known.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".csv").write_text(as_csv(known, result))
    path.write_text(dumped({**result, "tables": tables(known, result)}))
    return path


def found(name: str, root: Path) -> dict[str, Any] | None:
    """Return the scores of a study: from its log, or those that are committed."""
    log, path = root / "runs" / "eval" / f"{name}.jsonl", committed(root, name)
    if log.is_file():
        return summary(name, read_log(log))
    return json.loads(path.read_text()) if path.is_file() else None


def write_pictures(root: Path, number: int) -> Path:
    """Look at the embedded model and write down what is seen; return where."""
    from foveate.cli.models import load
    from foveate.eval.running.origin import origin
    from foveate.eval.showing.looks import Looks

    seen = looked(Looks(load(attn="eager"), number))
    path = committed(root, PICTURES)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dumped({**origin("cpu"), **seen}))
    return path


def wrong(path: Path) -> list[str]:
    """Return what does not follow from the scores of a committed file."""
    result: dict[str, Any] = json.loads(path.read_text())
    if result["study"] == PICTURES:
        again = picture_tables(result, result["divergences"], result["setting"]["prompts"])
        return [] if again == result["tables"] else ["its tables are not those of its numbers"]
    known = study(result["study"])
    again = tables(known, result)
    complaints = [
        f"table {name} is not that of its scores"
        for name in again
        if again[name] != result["tables"].get(name)
    ]
    csv = path.with_suffix(".csv")
    if not csv.is_file() or csv.read_text() != as_csv(known, result):
        complaints.append(f"{csv.name} is not that of its scores")
    return complaints


def check(root: Path) -> int:
    """Print what is wrong with the committed files; return the exit code."""
    count = 0
    for path in sorted((root / "benchmarks" / "results").glob("eval-*.json")):
        for complaint in wrong(path):
            print(f"{path.name}: {complaint}; run scripts/results.py")
            count += 1
    return int(count > 0)


def main(arguments: list[str], root: Path = ROOT) -> int:
    """Write or check; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if out of date")
    parser.add_argument("--study", help="the study that --from is of")
    parser.add_argument("--from", dest="logs", nargs="+", type=Path, help="logs of one study")
    parser.add_argument("--pictures", type=int, metavar="PROMPTS", help="look at so many prompts")
    given = parser.parse_args(arguments)
    try:
        if given.check:
            return check(root)
        if given.pictures:
            print(f"written: {write_pictures(root, given.pictures)}")
        if given.logs:
            name = study(given.study or given.logs[0].stem).name
            results = [summary(name, read_log(*given.logs))]
        else:
            results = [result for name in studies() if (result := found(name, root))]
        for result in results:
            print(f"written: {write(result, root)}")
    except FoveateError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

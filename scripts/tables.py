"""Fills the marked tables of the documents from benchmarks/results/*.json, or checks them.

A document holds `<!-- table:NAME -->` and `<!-- /table -->`; NAME.json has a `table` of columns and
rows, all text. `<!-- table:NAME rows: WORD -->` shows the rows whose first column is WORD, and
`<!-- table:NAME part: PART -->` the one of `tables` with that name. Run without arguments it
writes; with --check it only says what is out of date.
"""

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(
    r"(<!-- table:([\w-]+)(?: (rows|part): ([^\n]+?))? -->\n).*?(<!-- /table -->)", re.DOTALL
)


class TableError(Exception):
    """A marked table cannot be written."""


def documents(root: Path) -> list[Path]:
    """Return the documents that may hold tables."""
    return sorted([*root.glob("*.md"), *root.glob("docs/**/*.md")])


def markdown(name: str, kind: str | None, chosen: str | None, results: Path) -> str:
    """Return the table of a result file as Markdown, and where its numbers come from.

    With `kind` "rows" only those that begin with `chosen`, with "part" the table of that name.
    """
    path = results / f"{name}.json"
    if not path.is_file():
        raise TableError(f"there is no {path.name} in {results}; run the benchmark that writes it")
    result = json.loads(path.read_text())
    known = result.get("tables", {})
    if kind == "part" and chosen not in known:
        raise TableError(f"{path.name} has no table {chosen!r}; known: {', '.join(known)}")
    table = known[chosen] if kind == "part" else result["table"]
    rows = [row for row in table["rows"] if kind != "rows" or row[0] == chosen]
    if not rows:
        raise TableError(f"no row of {path.name} begins with {chosen!r}")
    lines = [table["columns"], ["---"] * len(table["columns"]), *rows]
    text = "".join("| " + " | ".join(line) + " |\n" for line in lines)
    title = f"\n{table['title']}:\n" if "title" in table else ""
    return f"{title}\n{text}\n{table.get('source') or _origin(result)}\n\n"


def _origin(result: dict[str, Any]) -> str:
    machine = result["machine"]
    count = machine["threads"]
    threads = f"{count} thread{'s' if count > 1 else ''}"
    place = machine.get("gpu") or f"{threads} of {machine['system']}"
    versions = ", ".join(f"{k} {v}" for k, v in result["versions"].items() if k != "foveate")
    return f"Measured on {result['date']} at commit `{result['commit']}` with {place}; {versions}."


def filled(text: str, results: Path) -> str:
    """Return a document with its marked tables written anew."""
    return BLOCK.sub(lambda m: m[1] + markdown(m[2], m[3], m[4], results) + m[5], text)


def main(arguments: list[str], root: Path = ROOT) -> int:
    """Write or check the tables of all documents; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if out of date")
    check = parser.parse_args(arguments).check
    stale = []
    for path in documents(root):
        text = path.read_text()
        try:
            new = filled(text, root / "benchmarks" / "results")
        except TableError as error:
            print(f"{path.relative_to(root)}: {error}", file=sys.stderr)
            return 1
        if new != text:
            stale.append(str(path.relative_to(root)))
            if not check:
                path.write_text(new)
    if stale:
        print(("out of date, run scripts/tables.py: " if check else "written: ") + ", ".join(stale))
    return int(bool(stale) and check)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Fills the marked tables of the documents from benchmarks/results/*.json, or checks them.

A document holds `<!-- table:NAME -->` and `<!-- /table -->`; NAME.json has a `table` of columns and
rows, all text. `<!-- table:NAME part: PART rows: A; B columns: C; D -->` shows, each word being
optional, the one of `tables` with that name, the rows whose first column is A or B, and the
columns C and D, in that order. Run without arguments it writes; with --check it only says what is
out of date.
"""

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(
    r"(<!-- table:([\w-]+)(?: part: ([^\n]+?))?(?: rows: ([^\n]+?))?(?: columns: ([^\n]+?))? -->\n)"
    r".*?(<!-- /table -->)",
    re.DOTALL,
)


class TableError(Exception):
    """A marked table cannot be written."""


def documents(root: Path) -> list[Path]:
    """Return the documents that may hold tables."""
    return sorted([*root.glob("*.md"), *root.glob("docs/**/*.md")])


def markdown(
    results: Path, name: str, part: str | None, rows: str | None, columns: str | None
) -> str:
    """Return the table of a result file as Markdown, and where its numbers come from."""
    path = results / f"{name}.json"
    if not path.is_file():
        raise TableError(f"there is no {path.name} in {results}; run the benchmark that writes it")
    result = json.loads(path.read_text())
    known = result.get("tables", {})
    if part is not None and part not in known:
        raise TableError(f"{path.name} has no table {part!r}; known: {', '.join(known)}")
    table = result["table"] if part is None else known[part]
    lines = _chosen(path.name, table, rows, columns)
    lines.insert(1, ["---"] * len(lines[0]))
    text = "".join("| " + " | ".join(line) + " |\n" for line in lines)
    title = f"\n{table['title']}:\n" if "title" in table else ""
    return f"{title}\n{text}\n{table.get('source') or _origin(result)}\n\n"


def _chosen(
    file: str, table: dict[str, Any], rows: str | None, columns: str | None
) -> list[list[str]]:
    """Return the heads and the rows that are shown."""
    shown = table["rows"]
    if rows is not None:
        wanted = rows.split("; ")
        for word in wanted:
            if all(row[0] != word for row in shown):
                raise TableError(f"no row of {file} begins with {word!r}")
        shown = [row for word in wanted for row in shown if row[0] == word]
    heads = table["columns"]
    places = [*range(len(heads))]
    if columns is not None:
        for word in columns.split("; "):
            if word not in heads:
                raise TableError(f"{file} has no column {word!r}; known: {'; '.join(heads)}")
        places = [heads.index(word) for word in columns.split("; ")]
    return [[line[place] for place in places] for line in [heads, *shown]]


def _origin(result: dict[str, Any]) -> str:
    machine = result["machine"]
    count = machine["threads"]
    threads = f"{count} thread{'s' if count > 1 else ''}"
    place = machine.get("gpu") or f"{threads} of {machine['system']}"
    versions = ", ".join(f"{k} {v}" for k, v in result["versions"].items() if k != "foveate")
    return f"Measured on {result['date']} at commit `{result['commit']}` with {place}; {versions}."


def filled(text: str, results: Path) -> str:
    """Return a document with its marked tables written anew."""
    return BLOCK.sub(lambda m: m[1] + markdown(results, *m.group(2, 3, 4, 5)) + m[6], text)


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

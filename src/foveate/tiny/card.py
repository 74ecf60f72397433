"""Write the tables of the model card from benchmarks/results: `python -m foveate.tiny.card`."""

import argparse
import json
import re
from pathlib import Path

from foveate.tiny import CHECKPOINT

BLOCK = re.compile(r"(<!-- table:([\w-]+) -->\n).*?(<!-- /table -->)", re.DOTALL)


def markdown(path: Path) -> str:
    """The table of a result file, and a line about where its numbers come from."""
    result = json.loads(path.read_text())
    columns, rows = result["table"]["columns"], result["table"]["rows"]
    lines = ["| " + " | ".join(line) + " |" for line in (columns, ["---"] * len(columns), *rows)]
    versions = ", ".join(f"{name} {result['versions'][name]}" for name in ("torch", "transformers"))
    origin = f"Measured on {result['date']} at commit `{result['commit']}` with {versions}."
    return "\n".join([*lines, "", origin, ""])


def fill(card: Path, results: Path) -> str:
    """The card with every marked table written anew."""
    text = card.read_text()
    return BLOCK.sub(lambda m: m[1] + markdown(results / f"{m[2]}.json") + m[3], text)


def main() -> None:
    """Read the arguments, write the card."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--card", type=Path, default=CHECKPOINT / "README.md")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    args.card.write_text(fill(args.card, args.results))


if __name__ == "__main__":
    main()

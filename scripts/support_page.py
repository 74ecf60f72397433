"""Writes docs/support.md from benchmarks/results/support.json, the result of support_scan.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULT, PAGE = ROOT / "benchmarks" / "results" / "support.json", ROOT / "docs" / "support.md"
VERDICTS = ("supported", "native", "refused", "unknown")


def page(result: dict[str, Any]) -> str:
    """Return the documentation page of a result."""
    rows = result["families"]
    count = {verdict: sum(row["verdict"] == verdict for row in rows) for verdict in VERDICTS}
    lines = [
        "# Supported models",
        "",
        "<!-- Written by scripts/support_scan.py from benchmarks/results/support.json. -->",
        "",
        f"All {len(rows)} image-text-to-text families that transformers {result['transformers']} "
        f"registers, each built small with random weights and run: {count['supported']} supported, "
        f"{count['native']} native, {count['refused']} refused, {count['unknown']} unknown.",
        "",
        "- **supported**: keeping everything is bit-identical to the untouched model, and a run",
        "  that evicts equals the full cache with the evicted positions hidden.",
        "- **native**: nothing to compress; every layer has a small cache of its own kind.",
        "- **refused**: Foveate raises an error, or the reason says what is missing.",
        "- **unknown**: the shrunken model did not run here, or a check failed.",
        "",
        "Layers: compressible of all layers of the shrunken language model.",
        "",
        "| family | language model | verdict | layers | ran | reason |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        reason = row["reason"].replace("|", "\\|")
        if row["verdict"] == "supported":
            reason = f"evicted equals hidden within {row['difference']:.0e}"
        lines.append(
            f"| {row['model_type']} | {row['language_model']} | {row['verdict']} | {row['layers']} "
            f"| {row['ran']} | {reason} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(json.loads(RESULT.read_text())))

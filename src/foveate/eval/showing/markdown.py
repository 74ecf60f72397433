"""Tables as Markdown, for whoever puts them into a document."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["as_markdown"]


def as_markdown(tables: Iterable[Mapping[str, Any]], closing: str) -> str:
    """Return tables, each with its title and perhaps its source, and some words behind them."""
    parts = []
    for table in tables:
        columns: Sequence[str] = table["columns"]
        rows = [columns, ["---"] * len(columns), *table["rows"]]
        parts.append(f"{table['title']}:\n\n" + "".join(map(_line, rows)))
        if "source" in table:
            parts.append(f"{table['source']}\n")
    return "\n".join([*parts, f"{closing}\n"])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"

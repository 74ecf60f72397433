"""Writes docs/methods.md from the presets' docstrings and values, or checks it (--check)."""

import argparse
import dataclasses
import inspect
import sys
from pathlib import Path
from typing import Any

from foveate.methods import PRESETS
from foveate.methods.paper import describe
from foveate.scope import Visual

PAGE = Path(__file__).resolve().parent.parent / "docs" / "methods.md"
HEAD = """# Methods

A method is a value made of five values: which tokens may go (scope), what each is worth (score),
how many stay (budget), what becomes of the rest (reduce), and when. `foveate.method(name, keep=…,
**options)` or the function of that name makes one; `print(method)` shows all five.

`keep` is what is kept: a float is the share of the candidate tokens, an int the tokens per
key-value head and layer on average. With `scope="native"` all tokens are candidates, and what a
method protects (window, sinks, recent tokens) is inside the budget; AirCache and InfiniPot-V are
about visual tokens alone, natively too. With `scope="visual"` every method is under the same
accounting: visual tokens are the candidates, all text stays on top, and nothing is evicted while
decoding. Totals are exact but where a method says otherwise: the rounding of programs
(`rounding="official"`, SparseMM without `redistribute`), budgets that hold all text (LOOK-M's
`union`), least numbers (AirCache's `k_min`) and layers that are skipped (KNorm) add to them or take
from them.

This page is written by `scripts/methods_page.py` from the code.

## In a sentence each

With what counts as a candidate by default: visual tokens alone (all text stays), or every token.
[Which one to take](usage.md#which-method) is on another page.

"""
SPACE = """
## The design space

What every preset is made of with its own defaults, without `keep` and what the parts have by
default. The parts are classes of `foveate.scope`, `foveate.score`, `foveate.budget`,
`foveate.reduce` and `foveate.schedule`, whose docstrings say what they do; a method of your own
[takes the same ones](new-method.md).

"""


def short(part: Any) -> str:
    """Return the class of a part, with the fields that are not at their defaults."""
    if isinstance(part, float):
        return f"{part:.6g}"
    if not dataclasses.is_dataclass(part):
        return repr(part)
    shown = []
    for field in dataclasses.fields(part):
        value = getattr(part, field.name)
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        if field.name == "keep" or value == default:
            continue
        shown.append(f"{field.name}={short(value)}")
    words = ", ".join(shown)
    return f"{type(part).__name__}({words})" if words else type(part).__name__


def cell(part: Any) -> str:
    """Return a part as a cell of a table."""
    return f"`{short(part)}`".replace("|", "\\|")


def glance() -> str:
    """Return the table of all presets in a sentence each."""
    lines = ["| method | candidates | what it does |", "|---|---|---|"]
    for preset in PRESETS:
        name = f"[{preset.__name__}](#{preset.__name__})"
        kind = "visual" if isinstance(preset().scope, Visual) else "all"
        lines.append(f"| {name} | {kind} | {describe(preset).about} |")
    return "\n".join(lines) + "\n"


def space() -> str:
    """Return the table of all presets and their five parts."""
    lines = ["| method | scope | score | budget | reduce | when |", "|---|---|---|---|---|---|"]
    for preset in PRESETS:
        made = preset()
        parts = (made.scope, made.score, made.budget, made.reduce, made.when)
        name = f"[{preset.__name__}](#{preset.__name__})"
        lines.append(f"| {name} | " + " | ".join(map(cell, parts)) + " |")
    return "\n".join(lines) + "\n"


def section(preset: Any) -> str:
    """Return what is said about one preset."""
    info = describe(preset)
    source = f" ([arXiv {info.arxiv}](https://arxiv.org/abs/{info.arxiv}))" if info.arxiv else ""
    text = inspect.getdoc(preset) or ""
    body, _, notes = text.partition("Differs from the paper:")
    body = body.replace(body.partition("\n")[0], info.about, 1)
    lines = [f"## {info.name}", "", f"{info.paper}{source}.", "", body.strip(), ""]
    lines += ["| option | default | allowed |", "|---|---|---|"]
    for option in info.options:
        allowed = " \\| ".join(f"`{word}`" for word in option.allowed)
        lines.append(f"| `{option.name}` | `{option.default!r}` | {allowed} |")
    if info.more:
        lines.append(f"| {info.more} | | |")
    return "\n".join([*lines, "", f"**Differs from the paper:** {' '.join(notes.split())}", ""])


def page() -> str:
    """Return the whole page."""
    return (
        HEAD + glance() + SPACE + space() + "\n" + "\n".join(section(preset) for preset in PRESETS)
    )


def main() -> int:
    """Write or check the page; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if out of date")
    check = parser.parse_args().check
    text = page()
    if PAGE.exists() and PAGE.read_text() == text:
        return 0
    if check:
        sys.stderr.write("docs/methods.md is out of date, run scripts/methods_page.py\n")
        return 1
    PAGE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Parts of `foveate.eval` import from the layers below their own, and never from those above."""

import ast
from pathlib import Path

import pytest

import foveate.eval

FOLDER = Path(foveate.eval.__file__).parent
LAYERS = (
    {"record", "task", "entry"},  # values
    {"metrics", "generated", "local", "tasks"},  # what is asked, and how it is judged
    {"asking", "fidelity"},  # a batch, and a model that is loaded
    {"log", "running", "grid"},  # all of it, whatever is killed on the way
    {"judging"},  # what the scores mean
    {"study", "studies"},  # grids that answer a question
    {"showing"},  # tables and pictures
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def imported(path):
    """The parts of `foveate.eval` that a file imports from, wherever it does."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("foveate.eval"):
            parts = node.module.split(".")[2:]
            yield from parts[:1] or (alias.name for alias in node.names)


def part(path):
    return path.relative_to(FOLDER).with_suffix("").parts[0]


@pytest.mark.parametrize(
    "path", sorted(FOLDER.rglob("*.py")), ids=lambda path: str(path.relative_to(FOLDER))
)
def test_imports_go_down(path):
    if path == FOLDER / "__init__.py":
        return
    above = {name for name in imported(path) if LEVEL[name] > LEVEL[part(path)]}
    assert not above


def test_every_part_has_a_layer():
    there = {part(path) for path in FOLDER.rglob("*.py")} - {"__init__"}
    assert there == {*LEVEL}

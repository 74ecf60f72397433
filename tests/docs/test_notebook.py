"""The notebook runs from top to bottom, shows pictures, and is kept without what it said."""

import ast
import json

import pytest

from desk import ROOT

NOTEBOOK = json.loads((ROOT / "examples/look.ipynb").read_text())
CODE = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


def test_outputs_are_left_out():
    assert (NOTEBOOK["nbformat"], NOTEBOOK["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in NOTEBOOK["cells"]}) == len(NOTEBOOK["cells"])
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in CODE)


def run(cell, names):
    """Run a cell; return the value of its last line, which a notebook would show."""
    tree = ast.parse("".join(cell["source"]))
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    return last and eval(compile(ast.Expression(last.value), "cell", "eval"), names)


@pytest.fixture(scope="module")
def shown():
    names = {}
    return [run(cell, names) for cell in CODE], names


def test_pictures_are_shown(shown):
    pictures = [value._repr_png_() for value in shown[0] if value is not None]
    assert len(pictures) == 4
    assert all(png.startswith(b"\x89PNG") for png in pictures)
    assert len({*pictures}) == 4


def test_answers_are_right(shown):
    names = shown[1]
    assert names["said"] == names["question"].answer
    assert names["right"] < 8  # of random, which comes last

"""The page about errors quotes messages that exist, and every class."""

import ast
import re

import pytest

from desk import ROOT
from foveate import errors

PAGE = (ROOT / "docs/errors.md").read_text()
QUOTED = re.findall(r"^\| `([^`]*)` \|", PAGE.partition("## Installing")[2], re.MULTILINE)


def texts():
    """Return all strings of the package; what is filled in is an ellipsis."""
    for path in (ROOT / "src/foveate").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
            elif isinstance(node, ast.JoinedStr):
                yield "".join(v.value if isinstance(v, ast.Constant) else "…" for v in node.values)


TEXTS = [*texts()]
SAID = "[bold red]error:[/] "  # before messages on the command line


def exists(message):
    """Whether a string begins like this, an ellipsis being anything."""
    begins = re.compile(".*".join(map(re.escape, message.split("…"))))
    return any(begins.match(text.removeprefix(SAID)) for text in TEXTS)


@pytest.mark.parametrize("message", QUOTED)
def test_quoted_messages_are_those_of_the_source(message):
    assert exists(message)


def test_messages_that_nobody_says_are_found():
    assert not exists("there is no such method")
    assert not exists("study … has its own tasks")
    assert len(QUOTED) > 40


def test_every_class_is_explained():
    classes = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.FoveateError)
    ]
    table = PAGE.partition("## Installing")[0]
    for kind in classes:
        assert f"| `{kind.__name__}` | `" in table
        (bases,) = re.findall(rf"^\| `{kind.__name__}` \| `(\w+)` \|", table, re.MULTILINE)
        assert bases in [base.__name__ for base in kind.__mro__[1:]]

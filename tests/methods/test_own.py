"""Methods of one's own by `module:function`: found beside the work, and refused with the cure."""

import re
import sys

import pytest

import foveate
from foveate.cli.options import build_method, parse_entry
from foveate.errors import MethodError

MINE = """
import foveate

def few(keep=0.5, window=8):
    return foveate.snapkv(keep=keep, window=window)

def nothing(keep=0.5):
    return keep
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    (tmp_path / "beside_the_work.py").write_text(MINE)
    (tmp_path / "in_need.py").write_text("import nowhere_to_be_found\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "beside_the_work", raising=False)


def test_functions_beside_the_work_are_presets():
    assert build_method("beside_the_work:few", "0.25", ["window=16"]) == foveate.snapkv(
        keep=0.25, window=16
    )
    assert build_method("beside_the_work:few", None, []) == foveate.snapkv(keep=0.5, window=8)


def test_entries_take_them_with_options():
    entry = parse_entry("beside_the_work:few(window=4)")
    assert entry.label == "beside_the_work:few(window=4)"
    assert entry.method(64) == foveate.snapkv(keep=64, window=4)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        (
            "elsewhere:few",
            [],
            "no module 'elsewhere' for 'elsewhere:few'; start where elsewhere.py",
        ),
        (
            "elsewhere.deeper:few",
            [],
            "no module 'elsewhere.deeper' .*start where elsewhere/deeper.py",
        ),
        ("mine.py:few", [], "no module 'mine.py' .*leave out .py: mine:few"),
        (":few", [], "':few' names no module; write MODULE:FUNCTION"),
        (".elsewhere:few", [], "names no module"),
        ("beside_the_work:fev", [], "no function 'fev'; did you mean 'few'"),
        ("beside_the_work:nothing", [], "returned float; return a foveate.Method"),
        ("beside_the_work:few", ["windows=4"], "cannot be called with .*'windows'"),
    ],
)
def test_what_cannot_be_made_is_refused(name, options, says):
    with pytest.raises(MethodError, match=says):
        build_method(name, "0.1", options)


def test_what_a_module_itself_lacks_is_not_hidden():
    with pytest.raises(ModuleNotFoundError, match="nowhere_to_be_found"):
        build_method("in_need:few", None, [])


def test_names_from_elsewhere_import_nothing():
    with pytest.raises(MethodError, match=re.escape("no method 'beside_the_work:few'")):
        foveate.method("beside_the_work:few")
    assert "beside_the_work" not in sys.modules

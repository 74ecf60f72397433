"""A comparison of the embedded model, and its page opened in a browser."""

import contextlib
import json

import pytest

from browsing import Opened
from foveate import tiny
from foveate.cli.models import Loaded
from foveate.report import collect, write
from foveate.tiny.documents import document

METHODS, KEEPS = ("aircache", "snapkv"), (0.5, 0.1, 0.01)


@pytest.fixture(scope="session")
def loaded():
    """The embedded model."""
    return Loaded("embedded", *tiny.load())


@pytest.fixture(scope="session")
def sheet():
    """A document of 11 x 13 patches."""
    return document(15, grid=(11, 13))


@pytest.fixture(scope="session")
def comparison(loaded, sheet):
    """What two methods make of a question at three budgets."""
    asked = sheet.questions[1].text
    return collect(loaded, sheet.pages, asked, METHODS, KEEPS, max_new_tokens=8)


@pytest.fixture
def values(comparison):
    """The comparison as plain values, to be changed."""
    return json.loads(json.dumps(comparison.to_dict()))


@pytest.fixture
def show(browser, tmp_path):
    """Open the page of a comparison from disk, in a window of some size."""
    with contextlib.ExitStack() as stack:

        def show(comparison, width=1280, height=800, **options):
            path = write(comparison, tmp_path / "report.html")
            context = browser.new_context(
                viewport={"width": width, "height": height}, offline=True, **options
            )
            stack.callback(context.close)
            opened = Opened(context.new_page())
            opened.page.goto(path.as_uri())
            opened.page.wait_for_selector("#numbers, .error", timeout=60_000)
            return opened

        yield show

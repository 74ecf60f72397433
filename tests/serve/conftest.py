"""Servers that follow a script, and the live page in a browser."""

import pytest

from browsing import Opened
from foveate.serve import Settings
from foveate.tiny.documents import document
from serving import ASKED, SEED, Script, hello, served


@pytest.fixture
def serve():
    """Serve a script with settings, until the test is over."""
    contexts = []

    def start(events=hello, engine=None, **settings):
        contexts.append(served(engine or Script(events), Settings(**settings)))
        return contexts[-1].__enter__()

    yield start
    for context in reversed(contexts):
        context.__exit__(None, None, None)


@pytest.fixture
def visit(browser):
    """Open the page in a window of some size."""
    contexts = []

    def visit(url, width=1280, height=800, **options):
        contexts.append(browser.new_context(viewport={"width": width, "height": height}, **options))
        opened = Opened(contexts[-1].new_page())
        opened.page.goto(url)
        opened.page.wait_for_selector("#question", timeout=60_000)
        return opened

    yield visit
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def sheet(tmp_path_factory):
    """A page as a file, a question about it, and the answer."""
    made = document(SEED)
    path = tmp_path_factory.mktemp("pictures") / "page.png"
    made.pages[0].save(path)
    return path, made.questions[ASKED].text, made.questions[ASKED].answer

"""A comparison of the embedded model, a browser if there is one, and pages opened in it."""

import contextlib
import json
import os
import shutil
from dataclasses import dataclass, field

import pytest

from foveate import tiny
from foveate.cli.models import Loaded
from foveate.report import collect, write
from foveate.tiny.documents import document

METHODS, KEEPS = ("aircache", "snapkv"), (0.5, 0.1, 0.01)
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
QUIET = (
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync",
    "--disable-component-update", "--no-first-run", "--font-render-hinting=none",
)  # fmt: skip


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


@dataclass
class Opened:
    """A page in a browser, with what it complained of and asked for."""

    page: object
    said: list = field(default_factory=list)
    asked: list = field(default_factory=list)

    def change(self, **state):
        """Set a part of the page's state, and wait until it shows."""
        self.page.evaluate(
            """async (state) => {
                const { change } = await window.foveate.shown;
                change(state);
                for (let i = 0; i < 2; i++) await new Promise(requestAnimationFrame);
            }""",
            state,
        )

    def wait(self, place, text):
        """Wait until an element says something."""
        self.page.locator(place).filter(has_text=text).wait_for()

    def text(self, place):
        """Return the visible text of the first element at a place."""
        return self.page.locator(place).first.inner_text()


@pytest.fixture(scope="session")
def browser():
    """A headless browser; tests are skipped where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    named = os.environ.get("FOVEATE_BROWSER")
    found = named or next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is there; set FOVEATE_BROWSER")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=found, args=list(QUIET))
        yield opened
        opened.close()


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
            opened.page.on("console", lambda message: opened.said.append(message.text))
            opened.page.on("pageerror", lambda error: opened.said.append(str(error)))
            opened.page.on("dialog", lambda dialog: opened.said.append("a dialog"))
            opened.page.on("request", lambda request: opened.asked.append(request.url))
            opened.page.goto(path.as_uri())
            opened.page.wait_for_selector("#numbers, .error", timeout=60_000)
            return opened

        yield show

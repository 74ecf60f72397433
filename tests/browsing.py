"""A headless browser, if there is one, and pages opened in it."""

import contextlib
import io
import os
import shutil
from dataclasses import dataclass, field

import pytest
from PIL import Image

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
QUIET = (
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync",
    "--disable-component-update", "--no-first-run", "--font-render-hinting=none",
)  # fmt: skip


@contextlib.contextmanager
def launched():
    """Yield a browser, or skip where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    named = os.environ.get("FOVEATE_BROWSER")
    found = named or next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is there; set FOVEATE_BROWSER")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=found, args=list(QUIET))
        yield opened
        opened.close()


@dataclass
class Opened:
    """A page in a browser, with what it complained of and asked for."""

    page: object
    said: list = field(default_factory=list)
    asked: list = field(default_factory=list)

    def __post_init__(self):
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: self.said.append("a dialog"))
        self.page.on("request", lambda request: self.asked.append(request.url))

    def change(self, **state):
        """Set a part of a report's state, and wait until it shows."""
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

    def shot(self, place="#sight"):
        """Return what a screen shows of the first element at a place."""
        shown = self.page.locator(place).first.screenshot()
        return Image.open(io.BytesIO(shown)).convert("RGB")

    def text(self, place):
        """Return the visible text of the first element at a place."""
        return self.page.locator(place).first.inner_text()

"""Draws docs/images/report.png: the first screen of `foveate report`, as a browser shows it.

    .venv/bin/python scripts/report_image.py

Needs playwright and a browser: chromium on the PATH, or the one that FOVEATE_BROWSER names.
"""

import argparse
import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from foveate import cli

TARGET = Path(__file__).resolve().parent.parent / "docs" / "images" / "report.png"


def written(folder: Path) -> Path:
    """Return the report of the generated page, newly made."""
    path = folder / "report.html"
    cli.application(("report",))(["report", "--out", str(path)], standalone_mode=False)
    return path


@contextlib.contextmanager
def window(scheme: str) -> Iterator[Any]:
    """Yield a page of a browser, of the size that the documents show."""
    from playwright.sync_api import sync_playwright

    browser = os.environ.get("FOVEATE_BROWSER") or shutil.which("chromium")
    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        context = opened.new_context(
            viewport={"width": 1280, "height": 776}, device_scale_factor=1.5, color_scheme=scheme
        )
        yield context.new_page()
        opened.close()


def save(page: Any, target: Path) -> None:
    """Save what a page shows, in few colours."""
    page.screenshot(path=str(target), animations="disabled")
    with Image.open(target) as image:
        few = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    few.save(target, optimize=True)


def draw(page: Path, target: Path, scheme: str) -> None:
    """Save the first screen of a page."""
    with window(scheme) as shown:
        shown.goto(page.as_uri())
        shown.wait_for_selector("#numbers")
        save(shown, target)


def main() -> None:
    """Draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scheme", choices=("light", "dark"), default="light")
    parser.add_argument("--out", type=Path, default=TARGET)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        draw(written(Path(folder)), given.out, given.scheme)


if __name__ == "__main__":
    main()

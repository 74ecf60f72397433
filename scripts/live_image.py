"""Draws docs/images/live.png: the page of `foveate serve --ui` as a browser shows it.

    .venv/bin/python scripts/live_image.py

Needs playwright and a browser: chromium on the PATH, or the one that FOVEATE_BROWSER names.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from report_image import save, window

TARGET = Path(__file__).resolve().parent.parent / "docs" / "images" / "live.png"
SERVE = [sys.executable, "-m", "foveate.cli", "serve", "--ui", "--port", "0"]


def draw(address: str, target: Path, scheme: str) -> None:
    """Ask about the first example at some budgets, and save the first screen."""
    with window(scheme) as page:
        page.goto(address)
        page.locator(".sample").first.click()
        page.wait_for_selector("#verdict .sign")
        for budget in ("10 %", "1 %"):
            page.focus("#budget")
            page.keyboard.press("Home")
            while page.locator(".dial output").inner_text() != budget:
                page.keyboard.press("ArrowRight")
            page.locator("#caption").filter(has_text=f"{budget}:").wait_for()
            page.wait_for_selector("#verdict .sign")
        page.evaluate("document.activeElement.blur()")
        save(page, target)


def main() -> None:
    """Draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scheme", choices=("light", "dark"), default="light")
    parser.add_argument("--out", type=Path, default=TARGET)
    given = parser.parse_args()
    server = subprocess.Popen(SERVE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        lines = [server.stdout.readline(), server.stdout.readline()]
        draw(lines[-1].split()[-1], given.out, given.scheme)
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()

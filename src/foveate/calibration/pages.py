"""Pages whose text and places are known: generated ones, or pictures with annotations."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from PIL import Image

from foveate.calibration.boxes import Box

__all__ = ["Chunk", "Page", "generated", "only_chunk"]

LAYOUTS = ("rows", "columns", "receipt", "table")
SKILLS = ("lookup", "row", "reverse")
DENSITIES = (0.15, 0.5, 1.0)  # the later ones for pages that came out empty
CELL = 16
_WORD = re.compile(r"[A-Z]+|[0-9.]+")


@dataclass(frozen=True)
class Chunk:
    """A piece of text and its box on the page."""

    text: str
    box: Box


@dataclass(frozen=True)
class Page:
    """A picture, what is written where, and the prompts that make a model read it."""

    name: str
    image: Image.Image = field(compare=False, repr=False)
    chunks: tuple[Chunk, ...]
    prompts: tuple[str, ...]


def only_chunk(text: str, chunks: Sequence[Chunk]) -> Chunk | None:
    """Return the chunk that a token's text is part of, or None unless it is exactly one."""
    if not text.strip():
        return None
    found = [chunk for chunk in chunks if text in chunk.text]
    return found[0] if len(found) == 1 else None


def generated(number: int, seed: int, prompt: str | None = None, scale: int = 1) -> Page:
    """Return a generated page; without a prompt, with the questions of the embedded model.

    The four layouts take turns. Pages are sparse, so that a character is often in one place only.
    """
    from foveate.tiny.documents import HELD_OUT, document

    drawn = (
        document(
            (seed * 100_003 + number) % len(HELD_OUT),
            layout=LAYOUTS[number % len(LAYOUTS)],
            density=density,
            distractors=0.0,
            skills=SKILLS,
        )
        for density in DENSITIES
    )
    found = next(page for page in drawn if page.questions)
    cell = CELL * scale
    image = found.pages[0]
    image = image.resize((image.width * scale, image.height * scale), Image.Resampling.BICUBIC)
    chunks = tuple(
        Chunk(
            word[0], (cell * word.start(), cell * row, cell * word.end() - 1, cell * row + cell - 1)
        )
        for row, line in enumerate(found.lines[0])
        for word in _WORD.finditer(line)
    )
    prompts = tuple(q.text for q in found.questions) if prompt is None else (prompt,)
    return Page(f"page-{number}", image, chunks, prompts)

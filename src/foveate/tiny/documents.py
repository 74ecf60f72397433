"""Seeded documents with questions: a character fills a cell, a cell becomes a visual token."""

from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from foveate.errors import InputError
from foveate.tiny import glyphs
from foveate.tiny.layouts import LAYOUTS, Dice, Entry, Keys, Sheet
from foveate.tiny.vocabulary import LETTERS

HELD_OUT = range(0, 1 << 31)
TRAINING = 1 << 40
SKILLS = ("lookup", "row")


@dataclass(frozen=True)
class Question:
    """A question, its only right answer, and the visual tokens of its page that hold both."""

    text: str
    answer: str
    skill: str
    page: int
    cells: tuple[int, ...]


@dataclass(frozen=True)
class Document:
    """Pages of `grid` cells, what is written on them, and what can be asked."""

    grid: tuple[int, int]
    lines: tuple[tuple[str, ...], ...]
    questions: tuple[Question, ...]
    cells: tuple[np.ndarray, ...] = field(repr=False, compare=False)

    @property
    def pages(self) -> tuple[Image.Image, ...]:
        """The pages as RGB pictures."""
        return tuple(Image.fromarray(glyphs.page(cells, self.grid)) for cells in self.cells)

    def evidence(self, question: Question) -> tuple[int, ...]:
        """The question's cells counted over the visual tokens of all pages."""
        offset = question.page * self.grid[0] * self.grid[1]
        return tuple(offset + cell for cell in question.cells)


def document(
    seed: int,
    *,
    layout: str = "rows",
    grid: tuple[int, int] = (16, 16),
    pages: int = 1,
    keys: tuple[int, int] = (1, 3),
    values: tuple[int, int] = (1, 6),
    density: float | None = None,
    distractors: float = 0.3,
    initials: int | None = None,
    skills: tuple[str, ...] = SKILLS,
) -> Document:
    """The document of a seed.

    `keys` and `values` are shortest and longest lengths, `density` is the share of filled places,
    `initials` is how many different letters new keys begin with.
    """
    if layout not in LAYOUTS:
        raise InputError(f"unknown layout {layout!r}; layouts are {', '.join(LAYOUTS)}")
    dice = Dice(seed)
    first = LETTERS if initials is None else "".join(dice.shuffled(LETTERS)[:initials])
    supply = Keys(dice, keys, distractors, first)
    sheets = []
    for number in range(pages):
        sheet = Sheet(
            number, grid, values, dice.between(30, 100) / 100 if density is None else density
        )
        LAYOUTS[layout](sheet, supply, dice)
        sheets.append(sheet)
    entries = [entry for sheet in sheets for entry in sheet.entries]
    questions = _questions(entries, layout, skills)
    if "count" in skills and entries and pages == 1:
        questions += _counts(entries, dice)
    return Document(
        grid,
        tuple(sheet.lines() for sheet in sheets),
        tuple(dice.shuffled(questions)),
        tuple(_paint(sheet.lines(), dice) for sheet in sheets),
    )


def _questions(entries: list[Entry], layout: str, skills: tuple[str, ...]) -> list[Question]:
    values = [value for entry in entries for value in entry.values]
    questions = []
    for entry in entries:
        everything = entry.key_cells + sum(entry.value_cells, ())
        first = entry.key_cells + entry.value_cells[0]
        if "lookup" in skills:
            questions.append(
                Question(entry.key + "?", entry.values[0], "lookup", entry.page, first)
            )
        if "row" in skills and layout == "table":
            questions.append(
                Question(entry.key + "*", " ".join(entry.values), "row", entry.page, everything)
            )
        if "reverse" in skills and values.count(entry.values[0]) == 1:
            questions.append(
                Question(entry.values[0] + "=", entry.key, "reverse", entry.page, first)
            )
    return questions


def _counts(entries: list[Entry], dice: Dice) -> list[Question]:
    """How many keys begin with a letter: one letter that occurs, one at random."""
    questions = []
    for letter in sorted({dice.pick(entries).key[0], dice.pick(LETTERS)}):
        cells = tuple(entry.key_cells[0] for entry in entries if entry.key[0] == letter)
        if len(cells) <= 9:
            questions.append(Question(letter + "=", str(len(cells)), "count", 0, cells))
    return questions


def _paint(lines: tuple[str, ...], dice: Dice) -> np.ndarray:
    """Cells of a page in random colours and glyph variants; a quarter is light on dark."""
    light = np.array([dice.between(165, 255) for _ in range(3)], np.uint8)
    dark = np.array([dice.between(0, 90) for _ in range(3)], np.uint8)
    paper, ink = (dark, light) if dice.random() < 0.25 else (light, dark)
    noise = np.random.default_rng(int(dice.random() * (1 << 53)))
    variants = noise.integers(0, len(glyphs.atlas()), size=len(lines) * len(lines[0]))
    return glyphs.cells(lines, variants, ink, paper)

"""Training batches: fresh documents, their questions packed into bins, nothing stored on disk."""

from dataclasses import dataclass

import numpy as np
import torch

from foveate.tiny.documents import TRAINING, Document, Question, document
from foveate.tiny.fast import Batch
from foveate.tiny.layouts import Dice
from foveate.tiny.vocabulary import END, IMAGE, PAD, VISION_END, VISION_START, encode

SPAN = 36
QUESTION_WEIGHT = 0.3
TRAINED = ("lookup", "row", "reverse")
REVERSED = 0.4


@dataclass(frozen=True)
class Scope:
    """What documents a stage draws: grids, layouts with weights, lengths, numbers of pages.

    `chained` is the share with several questions in a row, `crowded` of those with few initials.
    """

    grids: tuple[tuple[int, int], ...]
    layouts: tuple[tuple[str, float], ...]
    keys: tuple[int, int]
    values: tuple[int, int]
    pages: tuple[int, ...] = (1,)
    chained: float = 0.25
    skills: tuple[str, ...] = TRAINED
    crowded: float = 0.0


class Bins:
    """Fixed-width rows of tokens of one document, filled block by block."""

    def __init__(self, count: int):
        self.count, self.used = count, list[int]()
        shape = (count, SPAN)
        self.tokens = np.full(shape, PAD)
        self.positions, self.weights = np.zeros(shape, np.int64), np.zeros(shape, np.float32)
        self.blocks, self.answers = np.full(shape, -1), np.full(shape, -1)

    def add(self, question: Question, answer: int, block: int, start: int) -> bool:
        """Write a question where there is room; `start=1` continues the last bin's block."""
        asked, told = encode(question.text), [*encode(question.answer), END]
        ids = asked + told
        options = [len(self.used) - 1] if start else range(len(self.used))
        row = next((r for r in options if self.used[r] + len(ids) <= SPAN), None)
        if row is None:
            if len(self.used) == self.count:
                return False
            self.used.append(0)
            row, start = len(self.used) - 1, 0
        at = self.used[row]
        where = slice(at, at + len(ids))
        self.tokens[row, where] = ids
        self.positions[row, where] = np.arange(len(ids)) + (at if start else 0)
        self.blocks[row, where] = block if start == 0 else self.blocks[row, 0]
        self.weights[row, at : at + len(asked) - 2] = QUESTION_WEIGHT
        self.weights[row, at + len(asked) - 1 : at + len(ids) - 1] = 1.0
        self.answers[row, at + len(asked) - 1 : at + len(ids) - 1] = answer
        self.used[row] += len(ids)
        return True


def pack(page: Document, bins: Bins, first: int, chained: bool, dice: Dice) -> list[str]:
    """Fill the bins with questions, alone or chained one after the other; returns their skills."""
    skills: list[str] = []
    for block, question in enumerate(page.questions):
        if question.skill == "reverse" and dice.random() > REVERSED:
            continue
        if bins.add(question, first + len(skills), block, start=1 if chained and bins.used else 0):
            skills.append(question.skill)
    return skills


def batch(scope: Scope, shape: tuple[tuple[int, int], int], tokens: int, seed: int) -> Batch:
    """The batch of a seed: one shape for all rows, a layout for each, about `tokens` tokens."""
    dice = Dice(TRAINING + seed)
    grid, pages = shape
    cells = grid[0] * grid[1] * pages
    count = max(1, round(cells / SPAN))
    rows = max(1, round(tokens / (cells + count * SPAN)))
    skills: list[str] = []
    packed, patches = list[Bins](), list[np.ndarray]()
    while len(packed) < rows:
        layout = _weighted(scope.layouts, dice)
        crowded = scope.crowded > 0 and dice.random() < scope.crowded
        page = document(
            TRAINING + int(dice.random() * (1 << 52)),
            layout=layout,
            grid=grid,
            pages=pages,
            keys=scope.keys,
            values=scope.values,
            initials=dice.between(4, 12) if crowded else None,
            skills=scope.skills,
        )
        if not page.questions:
            continue
        bins = Bins(count)
        skills += [
            f"{layout}.{s}"
            for s in pack(page, bins, len(skills), dice.random() < scope.chained, dice)
        ]
        packed.append(bins)
        patches.append(np.stack(page.cells))
    return _tensors(grid, pages, packed, patches, tuple(skills))


def _weighted(options: tuple[tuple[str, float], ...], dice: Dice) -> str:
    at = dice.random() * sum(weight for _, weight in options)
    for name, weight in options:
        at -= weight
        if at < 0:
            return name
    return options[-1][0]


def _tensors(
    grid: tuple[int, int],
    pages: int,
    packed: list[Bins],
    patches: list[np.ndarray],
    skills: tuple[str, ...],
) -> Batch:
    cells = grid[0] * grid[1]
    pixels = torch.from_numpy(np.stack(patches))  # [B, pages, HW, 16, 16, 3]
    pixels = pixels.movedim(-1, 3).flatten(3).to(torch.float32) / 127.5 - 1.0
    fields = ("tokens", "positions", "blocks", "weights", "answers")
    stacked = {
        name: torch.from_numpy(np.stack([getattr(bins, name) for bins in packed]))
        for name in fields
    }
    prefix = torch.tensor(([VISION_START] + [IMAGE] * cells + [VISION_END]) * pages)
    return Batch(patches=pixels, grid=grid, prefix=prefix, skills=skills, **stacked)

"""Where keys and values are written on a page: four layouts, one function each."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from foveate.tiny.vocabulary import DIGITS, LETTERS

T = TypeVar("T")


class Dice:
    """Random draws that depend on the seed and `Random.random` alone, which Python keeps stable."""

    def __init__(self, seed: int):
        self.random = Random(seed).random

    def between(self, low: int, high: int) -> int:
        """A whole number, both ends included."""
        return low + int(self.random() * (high - low + 1))

    def pick(self, items: Sequence[T]) -> T:
        """One of the items."""
        return items[int(self.random() * len(items))]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """The items in random order."""
        return [items[i] for _, i in sorted((self.random(), i) for i in range(len(items)))]

    def text(self, alphabet: str, length: int) -> str:
        """A string of independent characters."""
        return "".join(self.pick(alphabet) for _ in range(length))


@dataclass(frozen=True)
class Entry:
    """A key and the values that belong to it, with the cells of each."""

    key: str
    values: tuple[str, ...]
    page: int
    key_cells: tuple[int, ...]
    value_cells: tuple[tuple[int, ...], ...]


class Keys:
    """Keys that never repeat in a document; some differ from an earlier one by a single letter."""

    def __init__(
        self, dice: Dice, lengths: tuple[int, int], distractors: float, initials: str = LETTERS
    ):
        self.dice, self.lengths, self.distractors = dice, lengths, distractors
        self.initials = initials
        self.used: list[str] = []

    def draw(self) -> str | None:
        """A new key, or None when the supply of short keys is used up."""
        for _ in range(20):
            key = self._candidate()
            if key not in self.used:
                self.used.append(key)
                return key
        return None

    def _candidate(self) -> str:
        dice = self.dice
        if self.used and dice.random() < self.distractors:
            key = dice.pick(self.used)
            at = dice.between(0, len(key) - 1)
            return key[:at] + dice.pick(LETTERS) + key[at + 1 :]
        length = dice.between(*self.lengths)
        return dice.pick(self.initials) + dice.text(LETTERS, length - 1)


class Sheet:
    """One page while it is being written."""

    def __init__(self, page: int, grid: tuple[int, int], values: tuple[int, int], density: float):
        self.page, self.values, self.density = page, values, density
        self.height, self.width = grid
        self.marks = [[" "] * self.width for _ in range(self.height)]
        self.entries: list[Entry] = []

    def write(self, row: int, column: int, text: str) -> tuple[int, ...]:
        """Put text into consecutive cells and return their indices."""
        self.marks[row][column : column + len(text)] = text
        start = row * self.width + column
        return tuple(range(start, start + len(text)))

    def add(self, key: str, at: tuple[int, int], *values: tuple[str, int, int]) -> None:
        """Write a key and its (value, row, column) triples, and remember them as one entry."""
        key_cells = self.write(*at, key)
        value_cells = tuple(self.write(row, column, value) for value, row, column in values)
        self.entries.append(
            Entry(key, tuple(v[0] for v in values), self.page, key_cells, value_cells)
        )

    def lines(self) -> tuple[str, ...]:
        """The characters of the page, row by row."""
        return tuple("".join(row) for row in self.marks)


def rows(sheet: Sheet, keys: Keys, dice: Dice) -> None:
    """Several entries a row, each value right behind its key."""
    for row in range(sheet.height):
        column = dice.between(0, 2)
        while True:
            key, value = keys.draw(), dice.text(DIGITS, dice.between(*sheet.values))
            if key is None:
                return
            if column + len(key) + len(value) > sheet.width:
                break
            if dice.random() < sheet.density:
                sheet.add(key, (row, column), (value, row, column + len(key)))
            column += len(key) + len(value) + dice.between(1, 3)


def columns(sheet: Sheet, keys: Keys, dice: Dice) -> None:
    """Values written under their keys, left edges in line."""
    row = dice.between(0, 1)
    while row + 1 < sheet.height:
        column = dice.between(0, 2)
        while True:
            key, value = keys.draw(), dice.text(DIGITS, dice.between(*sheet.values))
            if key is None:
                return
            if column + max(len(key), len(value)) > sheet.width:
                break
            if dice.random() < sheet.density:
                sheet.add(key, (row, column), (value, row + 1, column))
            column += max(len(key), len(value)) + dice.between(1, 3)
        row += 2 + dice.between(0, 1)


def receipt(sheet: Sheet, keys: Keys, dice: Dice) -> None:
    """One entry a row: key left, value flush right behind a gap, some with a decimal point."""
    left, right = dice.between(0, 1), sheet.width - dice.between(0, 1)
    for row in range(sheet.height):
        key = keys.draw()
        if key is None:
            return
        low, high = sheet.values
        room = right - left - len(key) - 2
        if room < low or dice.random() > sheet.density:
            continue
        length = dice.between(low, min(high, room))
        value = dice.text(DIGITS, length)
        if length >= 4 and dice.random() < 0.5:
            value = value[:-3] + "." + value[-2:]
        sheet.add(key, (row, left), (value, row, right - length))


def table(sheet: Sheet, keys: Keys, dice: Dice) -> None:
    """A key in front of each row, then two to five values in columns."""
    left, key_width = dice.between(0, 1), keys.lengths[1]
    low, high = min(sheet.values[0], 4), min(sheet.values[1], 4)
    high = min(high, max(low, (sheet.width - left - key_width) // 2 - 1))
    widest = dice.between(low, high)
    pitch = widest + dice.between(1, 2)
    count = min((sheet.width - left - key_width) // pitch, dice.between(2, 5))
    flush_right = dice.random() < 0.5
    for row in range(sheet.height):
        key = keys.draw()
        if key is None or count < 2:
            return
        if dice.random() > sheet.density:
            continue
        endings = dice.shuffled(DIGITS)
        placed = []
        for index in range(dice.between(2, count)):
            value = dice.text(DIGITS, dice.between(low, widest) - 1) + endings[index]
            column = (
                left + key_width + (index + 1) * pitch - (len(value) if flush_right else widest)
            )
            placed.append((value, row, column))
        sheet.add(key, (row, left), *placed)


LAYOUTS = {"rows": rows, "columns": columns, "receipt": receipt, "table": table}

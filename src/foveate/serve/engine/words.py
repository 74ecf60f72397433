"""Tokens to text as they come: no broken character is shown, and nothing of a stop string."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from foveate.serve.engine.asking import Chance, Piece

__all__ = ["Words"]

BROKEN = "\ufffd"  # what a decoder shows for bytes that are no character yet


class Words:
    """The text of one answer, and how much of it was told."""

    def __init__(self, decode: Callable[[list[int]], str], stops: Sequence[str] = ()) -> None:
        self._decode, self._stops = decode, [stop for stop in stops if stop]
        self._ids: list[int] = []
        self._begin = self._read = 0  # ids that the next ones are decoded with, and are in `text`
        self._chances: list[tuple[int, Chance]] = []  # where their text begins
        self.text = ""
        self._told = 0
        self.stopped = False

    def add(self, token: int, chance: Chance | None = None) -> Piece | None:
        """Return what may be told now that one more token is known."""
        if chance is not None:
            self._chances.append((len(self.text), chance))
        self._ids.append(token)
        fresh = self._fresh()
        if not fresh.endswith(BROKEN):
            self.text += fresh
            # ids without text stay with those before: decoders strip the first space of a text
            self._begin, self._read = self._read if fresh else self._begin, len(self._ids)
        self._stop()
        return self._tell(len(self.text) - (0 if self.stopped else self._held()))

    def finish(self) -> Piece | None:
        """Return all that was held back: nothing more comes."""
        if not self.stopped:
            self.text += self._fresh()
            self._begin = self._read = len(self._ids)
            self._stop()
        return self._tell(len(self.text), last=not self.stopped)

    def _fresh(self) -> str:
        """Return the text of the ids that are not in it yet, decoded with some before them."""
        before = self._decode(self._ids[self._begin : self._read])
        return self._decode(self._ids[self._begin :])[len(before) :]

    def _stop(self) -> None:
        """Cut the text before the first stop string."""
        places = [self.text.find(stop, self._told) for stop in self._stops]
        found = [place for place in places if place >= 0]
        if found:
            self.text, self.stopped = self.text[: min(found)], True

    def _held(self) -> int:
        """Return how many characters at the end may become a stop string."""
        rest = self.text[self._told :]
        return max(
            (
                length
                for stop in self._stops
                for length in range(1, min(len(stop), len(rest) + 1))
                if rest.endswith(stop[:length])
            ),
            default=0,
        )

    def _tell(self, end: int, last: bool = False) -> Piece | None:
        """Return the text up to there, and the chances of the tokens that begin before it."""
        text, self._told = self.text[self._told : end], end
        known = sum(last or place < end for place, _ in self._chances)  # places rise
        chances = tuple(chance for _, chance in self._chances[:known])
        self._chances = self._chances[known:]
        return Piece(text, chances) if text or chances else None

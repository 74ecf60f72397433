"""Reads the fenced blocks of a document, and what the comment before one says about its test.

Commands (```sh) and programs (```python) of documents are executed by tests/docs. A comment right
before the fence, which no reader sees, says what is different there, one thing a line:

    <!-- test: skip REASON                 nothing of this block is run: one of REASONS
               skip REASON: TEXT           lines that contain TEXT are not run
               replace TEXT => TEXT        run small, or elsewhere
               add WORDS                   to every command that is run
               after PAGE                  the programs of that page are run before
               file NAME                   is also written to a file, for later blocks
               raises NAME                 a program that ends with this error
               exits NUMBER                commands that end with this code -->
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

REASONS = {
    "gpu": "needs an accelerator",
    "download": "fetches a model, a data set or a repository",
    "environment": "installs packages, or needs an environment of its own",
    "minutes": "takes minutes, however small",
    "processes": "is started in several processes, as another test does",
    "checkout": "writes into the checkout",
}
COMMANDS = ("sh", "bash", "console")
DATA = ("text", "json", "toml", "yaml", "html", "markdown", "makefile", "dockerfile")
OURS = re.compile(r"^(?:\$ )?(?:foveate|make|pip|python) [a-z-]", re.MULTILINE)
WORD = {"after": r"[\w./-]+\.md", "raises": r"\w+", "exits": r"\d+"}
WORD |= {"add": r".+", "file": r"[\w.-]+"}


class BlockError(Exception):
    """A block or the comment before it says what cannot be understood."""


@dataclass(frozen=True)
class Note:
    """What the comment before a block says."""

    whole: str = ""
    lines: tuple[tuple[str, str], ...] = ()  # reason, and text of the lines that it is for
    replaced: tuple[tuple[str, str], ...] = ()
    add: str = ""
    after: str = ""
    file: str = ""
    raises: str = ""
    exits: int = 0


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, text and note, and the line that its fence is in."""

    language: str
    text: str
    note: Note
    line: int

    @property
    def small(self) -> str:
        """The text as it is run: with what the note replaces."""
        text = self.text
        for old, new in self.note.replaced:
            text = text.replace(old, new)
        return text

    def commands(self) -> list[tuple[str, str]]:
        """Return each command with the reason why it is not run, which is mostly empty."""
        lines = self.small.replace("\\\n", " ").splitlines()
        if self.language == "console":
            lines = [line[2:] for line in lines if line.startswith("$ ")]
        lines = [line for line in lines if line.strip() and not line.startswith("#")]
        return [(line, self._reason(line)) for line in lines]

    def _reason(self, line: str) -> str:
        found = (reason for reason, text in self.note.lines if text in line)
        return self.note.whole or next(found, "")


def blocks(path: Path) -> list[Block]:
    """Return the fenced blocks of a document, or raise for the first that cannot be understood."""
    found: list[Block] = []
    lines = enumerate(path.read_text().splitlines(), start=1)
    said: list[str] | None = None
    for number, line in lines:
        if line.lstrip().startswith("<!-- test:"):
            said = [line.lstrip()]
            while "-->" not in said[-1]:
                said.append(next(lines, (0, "-->"))[1])
        elif fence := re.match(r"( *)(?:```|~~~)(.*)$", line):
            inside = []
            while (line := next(lines, (0, "```"))[1]).strip() not in ("```", "~~~"):
                inside.append(line.removeprefix(fence[1]) + "\n")
            try:
                found.append(_checked(fence[2], "".join(inside), said or [], number))
            except BlockError as error:
                raise BlockError(f"line {number}: {error}") from None
            said = None
        elif said is not None:
            raise BlockError(f"line {number}: a comment about a test without a block behind it")
    return found


def _checked(language: str, text: str, said: list[str], line: int) -> Block:
    """Return the block, or raise for a language or a note that means nothing here."""
    if language not in (*COMMANDS, *DATA, "python"):
        allowed = ", ".join((*COMMANDS, "python", *DATA))
        raise BlockError(f"a block of {language or 'no language'!r}; name one of {allowed}")
    if language in DATA and OURS.search(text):
        raise BlockError(f"a command of ours in a block of {language}; call it sh")
    if language == "json":
        try:
            json.loads(text)
        except ValueError as error:
            raise BlockError(f"no JSON: {error}") from None
    block = Block(language, text, _note(said), line)
    if language in DATA and block.note != Note(file=block.note.file):
        raise BlockError(f"a note about a block of {language}, which is not run")
    for old, _ in block.note.replaced:
        if old not in text:
            raise BlockError(f"{old!r} is to be replaced, and is not there")
    for _, part in block.note.lines:
        if part not in text:
            raise BlockError(f"lines with {part!r} are to be skipped, and there are none")
    return block


def _note(said: list[str]) -> Note:
    """Return what a comment says."""
    whole, lines, replaced, words = "", [], [], {}
    text = "\n".join(said).removeprefix("<!-- test:").partition("-->")[0]
    for line in filter(None, map(str.strip, text.splitlines())):
        what, _, rest = line.partition(" ")
        if what == "skip":
            reason, _, part = rest.partition(": ")
            if reason not in REASONS:
                raise BlockError(f"{reason!r} is no reason; take one of {', '.join(REASONS)}")
            if part:
                lines.append((reason, part))
            else:
                whole = reason
        elif what == "replace" and " => " in rest:
            old, _, new = rest.partition(" => ")
            replaced.append((old, new))
        elif what in WORD and re.fullmatch(WORD[what], rest):
            words[what] = rest
        else:
            raise BlockError(f"{line!r} says nothing about a test")
    exits = int(words.pop("exits", 0))
    return Note(whole, tuple(lines), tuple(replaced), exits=exits, **words)

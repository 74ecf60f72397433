"""The pages that a command reads: generated ones, or a folder of pictures with annotations."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from foveate.calibration.pages import Chunk, Page, generated
from foveate.cli.images import open_image
from foveate.errors import InputError

READ = "Provide all the OCR results of this image."
SCALE = 3  # of generated pages for models that were trained on photographs and scans
FORM = '{"image": "page.png", "chunks": [{"text": "Total", "box": [left, top, right, bottom]}]}'


class Pages(Protocol):
    """Pages one by one, how many, and the prompt for all of them if there is one."""

    @property
    def prompt(self) -> str | None:
        """Return what is asked about every page without a prompt of its own."""

    def __len__(self) -> int:
        """Return how many pages come."""

    def __iter__(self) -> Iterator[Page]:
        """Yield the pages."""


@dataclass(frozen=True)
class Generated:
    """Pages of a seed; without a prompt, each with the questions that the embedded model knows."""

    count: int
    seed: int
    prompt: str | None
    scale: int

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Page]:
        for number in range(self.count):
            yield generated(number, self.seed, self.prompt, self.scale)


@dataclass(frozen=True)
class Annotated:
    """Pages of a folder; a page's own prompt comes before the one for all."""

    folder: Path
    entries: Sequence[dict[str, Any]]
    prompt: str
    max_pixels: int

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Page]:
        for number, entry in enumerate(self.entries):
            image = open_image(str(self.folder / entry["image"]), self.max_pixels)
            chunks = tuple(_chunk(one, image.size, number) for one in entry["chunks"])
            yield Page(entry["image"], image, chunks, (entry.get("prompt") or self.prompt,))


def find(
    data: Path | None,
    count: int | None,
    seed: int,
    prompt: str | None,
    embedded: bool,
    max_pixels: int,
    usual: int,
) -> Pages:
    """Return the pages of a folder, or generated ones: `usual` many, unless a count is given."""
    if data is not None:
        return Annotated(data, _entries(data)[:count], prompt or READ, max_pixels)
    if embedded:
        return Generated(count or usual, seed, prompt, scale=1)
    return Generated(count or usual, seed, prompt or READ, SCALE)


def _entries(folder: Path) -> list[dict[str, Any]]:
    """Return the checked annotations of a folder."""
    if not folder.is_dir():
        raise InputError(f"--data {folder} is no folder; give one with pictures and a JSON file")
    files = sorted((*folder.glob("*.json"), *folder.glob("*.jsonl")))
    if len(files) != 1:
        names = ", ".join(file.name for file in files) or "none"
        raise InputError(
            f"--data {folder} must have one .json or .jsonl file beside the pictures; found: "
            f"{names}"
        )
    try:
        text = files[0].read_text(encoding="utf-8-sig")
        lines = [line for line in text.splitlines() if line.strip()]
        listed = json.loads(text) if files[0].suffix == ".json" else [json.loads(x) for x in lines]
    except (OSError, ValueError) as error:
        raise InputError(
            f"{files[0]} cannot be read as JSON: {error}; .json is one list of pages, .jsonl has a "
            f"page per line, each {FORM}"
        ) from error
    if not isinstance(listed, list) or not listed:
        raise InputError(f"{files[0]} has no pages; give a list of them, each {FORM}")
    for number, entry in enumerate(listed):
        _check(entry, number)
    return listed


def _check(entry: Any, number: int) -> None:
    right = (
        isinstance(entry, dict)
        and isinstance(entry.get("image"), str)
        and isinstance(entry.get("chunks"), list)
        and isinstance(entry.get("prompt", ""), str)
        and all(
            isinstance(one, dict) and isinstance(one.get("text"), str) for one in entry["chunks"]
        )
    )
    if not right:
        shown = json.dumps(entry, ensure_ascii=False)[:120]
        raise InputError(f"page {number} of the annotations is {shown}; give {FORM}")


def _chunk(one: dict[str, Any], size: tuple[int, int], page: int) -> Chunk:
    """Return a piece of text with its box, given as four numbers or two points."""
    box = one.get("box")
    flat = (
        [x for point in box for x in (point if isinstance(point, list) else [point])]
        if isinstance(box, list)
        else []
    )
    numbers = all(isinstance(x, int | float) and math.isfinite(x) for x in flat)
    if len(flat) == 4 and numbers:
        left, right = sorted((flat[0], flat[2]))
        top, bottom = sorted((flat[1], flat[3]))
        if left < size[0] and top < size[1] and right >= 0 and bottom >= 0:
            return Chunk(one["text"], (left, top, right, bottom))
    raise InputError(
        f"the box of {one['text']!r} on page {page} is {box!r}; give two corner points in pixels, "
        f"[left, top, right, bottom], on a picture of {size[0]} x {size[1]}"
    )

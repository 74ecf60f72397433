"""What is asked about: the tokens of a prompt, and where the visual ones are on its pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from foveate.cli.models import Loaded
from foveate.errors import InputError
from foveate.hf.kinds import visual_ids
from foveate.hf.views import pictures
from foveate.picture import Picture
from foveate.report.pixels import carried
from foveate.report.places import placed, unplaced

__all__ = ["Shown", "shown", "told"]

NONE: Mapping[str, Any] = {"src": None}  # where a picture is not at hand


@dataclass(frozen=True)
class Shown:
    """A prompt of one row: its ids, its visual and its text positions, and its pictures."""

    ids: list[int]
    visual: list[int]
    text: list[int]
    owners: list[int | None]  # per token the number of its picture, -1: of none, None: text
    pictures: list[dict[str, Any]]
    notes: list[str]


def shown(loaded: Loaded, inputs: Mapping[str, Any], images: Sequence[Image.Image]) -> Shown:
    """Return what a page has to know of a prompt and its pictures."""
    config, processor = loaded.model.config, getattr(loaded.processor, "image_processor", None)
    sizes = [image.size for image in images] or None
    return told(
        config,
        inputs["input_ids"][0].tolist(),
        lambda: pictures(config, inputs, sizes, processor=processor),
        [{"src": carried(image), "width": image.width, "height": image.height} for image in images],
    )


def told(
    config: Any,
    ids: list[int],
    find: Callable[[], Sequence[Picture]],
    images: Sequence[Mapping[str, Any]],
) -> Shown:
    """Return the same from the ids alone; `find` says where the pictures' tokens are.

    `images` are those of the prompt's pictures; videos have none. Raises nothing: where `find`
    raises `InputError`, the tokens are shown in reading order.
    """
    marks = set(visual_ids(config))
    visual = [position for position, token in enumerate(ids) if token in marks]
    text = [position for position, token in enumerate(ids) if token not in marks]
    number = {position: i for i, position in enumerate(visual)}
    owners: list[int | None] = [-1 if token in marks else None for token in ids]
    notes: list[str] = []
    found: list[dict[str, Any]] = []
    try:
        left = iter(images)
        for i, picture in enumerate(find()):
            for view in picture.views:
                for position in (p for row in view.positions for p in row if p >= 0):
                    owners[position] = i
            image = NONE if picture.video else next(left, NONE)
            found.append({**image, "sheets": placed(picture, number)})
    except InputError as error:
        notes.append(f"the visual tokens are shown in reading order: {error}")
        owners = [None if owner is None else -1 for owner in owners]
        found = [{**NONE, "sheets": [unplaced(range(len(visual)))]}]
    return Shown(ids, visual, text, owners, found, notes)

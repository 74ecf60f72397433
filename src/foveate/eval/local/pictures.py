"""Images as tables hold them: paths, bytes, data addresses, or the records of Hugging Face."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from foveate.cli.images import read_image
from foveate.errors import InputError

__all__ = ["listed", "opened", "place"]

ALLOWED = "a path, bytes, a data: address, or a record with bytes or path"


def listed(cell: Any) -> list[Any]:
    """Return the images of a cell one by one."""
    if cell is None or cell == "" or (isinstance(cell, list | tuple) and not cell):
        raise InputError(f"it has no image; give {ALLOWED}, or a list of those")
    return list(cell) if isinstance(cell, list | tuple) else [cell]


def place(image: Any, folder: Path) -> Path | bytes:
    """Return the file that an image is in, or its bytes."""
    if isinstance(image, Mapping):
        image = image.get("bytes") or image.get("path")
    if isinstance(image, bytes):
        return image
    if not isinstance(image, str) or not image:
        raise InputError(f"its image is {type(image).__name__}; give {ALLOWED}")
    if image.startswith("data:"):
        return _decoded(image)
    if image.startswith(("http://", "https://")):
        raise InputError(f"its image is at {image[:80]}; download it and give its path")
    for file in (folder / image, folder / "images" / image):
        if file.is_file():
            return file
    raise InputError(
        f"there is no image {image}; paths are looked for in {folder} and its folder images"
    )


def _decoded(address: str) -> bytes:
    head, comma, body = address.partition(",")
    try:
        if not comma or not head.endswith(";base64"):
            raise ValueError("it does not begin with data:<type>;base64,")
        return base64.b64decode(body, validate=True)
    except (ValueError, binascii.Error) as error:
        raise InputError(f"its data: address cannot be decoded: {error}; write it anew") from error


def opened(found: Path | bytes) -> Image.Image:
    """Return the picture, or raise `InputError` with what is wrong with it."""
    if isinstance(found, Path):
        return read_image(found, f"image {found.name}")
    return read_image(io.BytesIO(found), f"an image of {len(found)} bytes")

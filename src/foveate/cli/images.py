"""Opens an image file as an RGB picture of sane size, or says what is wrong with it."""

import contextlib
import struct
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from foveate.errors import InputError

MAX_PIXELS = 80_000_000
MIN_SIDE = 8  # image processors misread pictures that are one or three pixels high or wide
SMALLER = "make it smaller, or raise --max-pixels if you trust the file"
DAMAGED = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)


def open_image(path: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Return the picture in the file: upright, RGB, transparent parts on white, at least 8 x 8."""
    return read_image(_existing(path), path, max_pixels, SMALLER)


def read_image(
    file: Path | BinaryIO, path: str, max_pixels: int = MAX_PIXELS, cure: str = "make it smaller"
) -> Image.Image:
    """Return the same picture of an open file, or of one that exists; `path` is what it is called.

    `cure` is said of a picture that has too many pixels.
    """
    with _limit(max_pixels):
        return read_limited(file, path, max_pixels, cure)


def read_limited(
    file: Path | BinaryIO,
    path: str,
    max_pixels: int,
    cure: str,
    formats: tuple[str, ...] | None = None,
) -> Image.Image:
    """Return the same with Pillow's own limits as they are, so that threads may call it.

    `formats` are the names that Pillow gives to what may come; everything if None.
    """
    try:
        image = Image.open(file, formats=formats)
    except UnidentifiedImageError:
        known = "PNG, JPEG, WebP, GIF, BMP or TIFF file" if formats is None else ", ".join(formats)
        raise InputError(f"{path} is not an image that Pillow can read; give a {known}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InputError(_too_large(path, "far too many", max_pixels, cure)) from None
    except DAMAGED as error:
        raise InputError(f"{path} cannot be read: {error}; check the file") from error
    with image:
        return ready(image, path, max_pixels, cure)


def ready(
    image: Image.Image, path: str, max_pixels: int = MAX_PIXELS, cure: str = "make it smaller"
) -> Image.Image:
    """Return the same picture of an image that Pillow has opened."""
    from foveate.tiny.images import to_rgb

    if image.width * image.height > max_pixels:
        size = f"{image.width} x {image.height}"
        raise InputError(_too_large(path, size, max_pixels, cure))
    try:
        image.load()
        return _enlarged(to_rgb(image), path, max_pixels)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except DAMAGED as error:
        raise InputError(
            f"{path} is damaged or cut off ({error}); save or download it again"
        ) from error


@contextlib.contextmanager
def _limit(pixels: int) -> Iterator[None]:
    """Hand our limit to Pillow, which also checks inner frames; its warnings are errors below."""
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = pixels
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _existing(path: str) -> Path:
    if path.startswith(("http://", "https://", "data:")):
        raise InputError(f"{path[:80]} is an address; download the image and give its file name")
    file = Path(path).expanduser()
    if not file.exists():
        raise InputError(f"there is no file {path}; give images first, and the question last")
    if not file.is_file():
        raise InputError(f"{path} is not a file; give image files, one by one")
    return file


def _too_large(path: str, what: str, limit: int, cure: str) -> str:
    return f"{path} has {what} pixels; at most {limit:,} in all are opened: {cure}"


def enlarged(width: int, height: int) -> tuple[int, int]:
    """Return the size that a picture of this size is opened with."""
    factor = max(1, -(-MIN_SIDE // min(width, height)))
    return width * factor, height * factor


def _enlarged(image: Image.Image, path: str, max_pixels: int) -> Image.Image:
    width, height = enlarged(*image.size)
    if (width, height) == image.size:
        return image
    if width * height > max_pixels:
        raise InputError(
            f"{path} is {image.width} x {image.height}, a mere line; crop it to at least "
            f"{MIN_SIDE} pixels either way"
        )
    return image.resize((width, height), Image.Resampling.NEAREST)

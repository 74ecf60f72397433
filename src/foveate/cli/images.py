"""Opens an image file as an RGB picture of sane size, or says what is wrong with it."""

import contextlib
import struct
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from foveate.errors import InputError

MAX_PIXELS = 80_000_000
MIN_SIDE = 8  # image processors misread pictures that are one or three pixels high or wide
DEEP_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
DAMAGED = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)


def open_image(path: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Return the picture in the file: upright, RGB, transparent parts on white, at least 8 x 8."""
    file = _existing(path)
    with _limit(max_pixels):
        try:
            image = Image.open(file)
        except UnidentifiedImageError:
            raise InputError(
                f"{path} is not an image that Pillow can read; give a PNG, JPEG, WebP, GIF, BMP or "
                "TIFF file"
            ) from None
        except Image.DecompressionBombError:
            raise InputError(_too_large(path, "far too many", max_pixels)) from None
        except DAMAGED as error:
            raise InputError(f"{path} cannot be read: {error}; check the file") from error
        with image:
            if image.width * image.height > max_pixels:
                raise InputError(_too_large(path, f"{image.width} x {image.height}", max_pixels))
            try:
                image.load()
                return _enlarged(_rgb(ImageOps.exif_transpose(image)), path, max_pixels)
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


def _too_large(path: str, what: str, limit: int) -> str:
    return (
        f"{path} has {what} pixels; at most {limit:,} in all are opened: make it smaller, or raise "
        "--max-pixels if you trust the file"
    )


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in DEEP_MODES:
        return Image.fromarray(_eight_bits(image)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        ink = image.convert("RGBA")
        paper = Image.new("RGBA", ink.size, "white")
        return Image.alpha_composite(paper, ink).convert("RGB")
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> np.ndarray:
    """Return a deep grey image as bytes; white is 65535 for integers, 1 or 255 for floats."""
    values = np.nan_to_num(np.asarray(image, np.float64), posinf=0.0, neginf=0.0)
    peak = values.max(initial=0.0)
    bounds = (1.0, 255.0) if image.mode == "F" else (65535.0,)
    white = next((bound for bound in bounds if peak <= bound), peak)
    return (values.clip(0, white) * (255 / white)).round().astype(np.uint8)


def _enlarged(image: Image.Image, path: str, max_pixels: int) -> Image.Image:
    factor = -(-MIN_SIDE // min(image.size))
    if factor <= 1:
        return image
    width, height = image.width * factor, image.height * factor
    if width * height > max_pixels:
        raise InputError(
            f"{path} is {image.width} x {image.height}, a mere line; crop it to at least "
            f"{MIN_SIDE} pixels either way"
        )
    return image.resize((width, height), Image.Resampling.NEAREST)

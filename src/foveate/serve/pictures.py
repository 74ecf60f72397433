"""Pictures of a request: from data: addresses, or fetched from hosts that the server allows."""

from __future__ import annotations

import binascii
import io
import math
from base64 import b64decode

import anyio
from anyio.to_thread import run_sync
from PIL import Image

from foveate.cli.images import enlarged, read_limited
from foveate.errors import InputError
from foveate.serve.problems import Problem
from foveate.serve.remote import Remote
from foveate.serve.room import Share
from foveate.serve.settings import Settings

__all__ = ["Pictures"]

FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
BYTES_A_PIXEL = 8  # while decoded: the file's own mode, RGBA, RGB


class Pictures:
    """Reads pictures, one at a time, in a thread beside the event loop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._remote = Remote(
            settings.picture_hosts, settings.picture_bytes, settings.picture_seconds
        )
        self._turn = anyio.CapacityLimiter(1)

    async def read(self, url: str, place: str, share: Share) -> Image.Image:
        """Return the upright RGB picture at this address; `place` is where the address stands."""
        data = await self._data(url, place, share)
        if len(data) > self._settings.picture_bytes:
            raise _too_large(f"{len(data):,} bytes", self._settings.picture_bytes, "bytes", place)
        width, height = await run_sync(_size, data, place, limiter=self._turn)
        if width * height > self._settings.pixels:
            size = f"{width} x {height} pixels"
            raise _too_large(size, self._settings.pixels, "pixels", place)
        large = math.prod(enlarged(width, height))  # of a line of pixels, much more
        kept = large if large <= self._settings.pixels else width * height  # else it is refused
        share.take(kept * BYTES_A_PIXEL)
        return await run_sync(self._decoded, data, place, limiter=self._turn)

    async def _data(self, url: str, place: str, share: Share) -> bytes:
        scheme, _, rest = url.partition(":")
        if scheme.lower() == "data":
            return await run_sync(_data, rest, place, limiter=self._turn)
        if scheme.lower() in ("http", "https"):
            return await self._remote.fetch(url, place, share)
        raise _problem(
            f"an address that begins with {url[:12]!r} cannot be read; give data:image/png;base64,"
            "... or what the server's operator allows",
            place,
        )

    def _decoded(self, data: bytes, place: str) -> Image.Image:
        cure = "make it smaller"
        try:
            return read_limited(io.BytesIO(data), "it", self._settings.pixels, cure, FORMATS)
        except (InputError, Warning) as error:
            raise _problem(f"the picture cannot be used: {error}", place) from None


def _data(rest: str, place: str) -> bytes:
    """Return the bytes of a data: address."""
    head, comma, body = rest.partition(",")
    if not comma or not head.lower().endswith(";base64"):
        raise _problem("a data: address has to be like data:image/png;base64,iVBOR...", place)
    try:
        return b64decode(body, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _problem(f"what follows base64, is not base64: {error}", place) from None


def _size(data: bytes, place: str) -> tuple[int, int]:
    """Return width and height as the file's head says, without decoding anything."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return image.size
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise Problem(
            413, "the picture has far too many pixels; make it smaller", param=place
        ) from None
    except Exception:  # whatever a decoder makes of bytes that are no picture
        known = ", ".join(FORMATS)
        raise _problem(f"the bytes are no picture that can be read; give {known}", place) from None


def _too_large(what: str, limit: int, unit: str, place: str) -> Problem:
    return Problem(
        413,
        f"the picture has {what}; at most {limit:,} {unit} are read here: make it smaller",
        param=place,
        code="image_too_large",
    )


def _problem(message: str, place: str) -> Problem:
    return Problem(400, message, param=place, code="invalid_image")

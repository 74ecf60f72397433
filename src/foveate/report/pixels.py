"""Pictures as a page carries them: small, and inside its own text."""

import base64
import io

from PIL import Image

__all__ = ["carried"]

LONGEST = 1024  # pixels; a patch of a page is seldom drawn larger


def carried(image: Image.Image, longest: int = LONGEST) -> str:
    """Return a picture as a data address, in the smaller one of JPEG and PNG."""
    image = image.convert("RGB")
    image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    coded = {"jpeg": _coded(image, "JPEG", quality=88, subsampling=0)}
    if max(image.size) <= 512:
        coded["png"] = _coded(image, "PNG", optimize=True)
    kind = min(coded, key=lambda name: len(coded[name]))
    return f"data:image/{kind};base64,{base64.b64encode(coded[kind]).decode('ascii')}"


def _coded(image: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()

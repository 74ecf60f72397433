"""Pictures of any mode and size to patches: the image processor of Qwen-VL in Pillow and NumPy."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import ExifTags, Image
from transformers import BatchFeature

from foveate.errors import InputError

PATCH = 16
MOST_TOKENS = 576
FRAMES = 2
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # what undoes an orientation of EXIF


def to_rgb(image: Image.Image) -> Image.Image:
    """The picture in 8-bit RGB, upright, transparency put on white."""
    turn = UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    if turn is not None:  # `exif_transpose` writes all the rest anew, which may be damaged
        image = image.transpose(turn)
    if image.mode.startswith("I"):
        deep = np.asarray(image).astype(np.int64).clip(0, 65535)
        return Image.fromarray((deep >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise InputError(
            "a floating-point image (mode F) has no fixed range; modes with whole numbers are "
            "allowed; scale it to 0..255 and convert it to mode L"
        )
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def fit(height: int, width: int) -> tuple[int, int]:
    """Height and width rounded to whole patches, shrunk where there would be too many of them."""
    if min(height, width) < 1 or max(height, width) > 200 * min(height, width):
        raise InputError(
            f"an image of {width} x {height} pixels; sides may differ by a factor of 200 at most; "
            "cut it into pieces"
        )
    rows, columns = round(height / PATCH), round(width / PATCH)
    if rows * columns > MOST_TOKENS:
        shrink = math.sqrt(height * width / (MOST_TOKENS * PATCH * PATCH))
        rows = max(1, math.floor(height / shrink / PATCH))
        columns = max(1, math.floor(width / shrink / PATCH))
    elif rows * columns < 1:
        grow = math.sqrt(PATCH * PATCH / (height * width))
        rows, columns = math.ceil(height * grow / PATCH), math.ceil(width * grow / PATCH)
    return rows * PATCH, columns * PATCH


def patches(image: Image.Image) -> tuple[np.ndarray, tuple[int, int, int]]:
    """Patches [H * W, 3 * 2 * 16 * 16] in raster order, values in -1..1; the grid (1, H, W)."""
    image = to_rgb(image)
    height, width = fit(image.height, image.width)
    if (height, width) != (image.height, image.width):
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    pixels = np.asarray(image, np.float32) / np.float32(127.5) - np.float32(1.0)
    rows, columns = height // PATCH, width // PATCH
    cells = pixels.reshape(rows, PATCH, columns, PATCH, 3).transpose(0, 2, 4, 1, 3)
    frames = np.broadcast_to(cells[:, :, :, None], (rows, columns, 3, FRAMES, PATCH, PATCH))
    return frames.reshape(rows * columns, -1), (1, rows, columns)


class ImageProcessor:
    """Images to `pixel_values` and `image_grid_thw`."""

    patch_size = PATCH
    temporal_patch_size = FRAMES
    merge_size = 1
    model_input_names = ("pixel_values", "image_grid_thw")

    def __call__(
        self, images: Image.Image | Sequence[Image.Image], return_tensors: str | None = "pt"
    ) -> BatchFeature:
        """Patches of all images one after the other, and a row of (1, H, W) for each."""
        listed = [images] if isinstance(images, Image.Image) else list(images)
        done = [patches(image) for image in listed]
        values = np.concatenate([cells for cells, _ in done])
        grids = np.array([grid for _, grid in done], np.int64)
        if return_tensors == "pt":
            tensors = {"pixel_values": torch.from_numpy(values)}
            return BatchFeature({**tensors, "image_grid_thw": torch.from_numpy(grids)})
        return BatchFeature({"pixel_values": values, "image_grid_thw": grids})

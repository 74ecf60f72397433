"""Pictures of every mode and size become the patches that Hugging Face would make."""

import numpy as np
import pytest
import torch
from PIL import Image

from foveate.errors import InputError
from foveate.tiny.images import ImageProcessor, fit, to_rgb

SIZES = [(256, 256), (384, 384), (100, 37), (1000, 700), (16, 640), (1999, 11)]


def picture(size, mode="RGB"):
    """A picture with smooth structure, so that resizing matters."""
    width, height = size
    y, x = np.mgrid[:height, :width]
    channels = [(x * 7 + y * 3) % 256, (x + 5 * y) % 256, (255 - x) % 256]
    return Image.fromarray(np.stack(channels, -1).astype(np.uint8)).convert(mode)


def reference():
    """Hugging Face's own image processor in Pillow, where this release has one."""
    limits = {"min_pixels": 256, "max_pixels": 576 * 256}
    try:
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import (
            Qwen2VLImageProcessorPil as Reference,
        )
    except ImportError:
        from transformers.models.qwen2_vl.image_processing_qwen2_vl import (
            Qwen2VLImageProcessor as Reference,
        )
    return Reference(
        patch_size=16,
        temporal_patch_size=2,
        merge_size=1,
        **limits,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )


@pytest.mark.parametrize("size", SIZES)
def test_patches_equal_those_of_hugging_face(size):
    ours = ImageProcessor()(picture(size))
    theirs = reference()(images=[picture(size)], return_tensors="pt")
    assert torch.equal(ours["image_grid_thw"], theirs["image_grid_thw"])
    torch.testing.assert_close(ours["pixel_values"], theirs["pixel_values"], atol=1e-5, rtol=0)


def test_several_images_follow_each_other():
    small, large = picture((32, 48)), picture((64, 16))
    both = ImageProcessor()([small, large])
    assert both["image_grid_thw"].tolist() == [[1, 3, 2], [1, 1, 4]]
    alone = [ImageProcessor()(image)["pixel_values"] for image in (small, large)]
    assert torch.equal(both["pixel_values"], torch.cat(alone))


@pytest.mark.parametrize(
    "mode", ["RGB", "L", "1", "P", "RGBA", "CMYK", "YCbCr", "HSV", "LA", "LAB"]
)
def test_every_mode_is_read(mode):
    source = "L" if mode == "LA" else "RGB"
    given = Image.new(mode, (33, 17)) if mode == "LAB" else picture((33, 17), source).convert(mode)
    done = to_rgb(given)
    assert (done.mode, done.size) == ("RGB", (33, 17))


def test_transparency_is_put_on_white():
    glass = Image.new("RGBA", (16, 16), (0, 0, 0, 0))
    assert to_rgb(glass).getpixel((3, 3)) == (255, 255, 255)


@pytest.mark.parametrize("kind", [np.uint16, np.int32])
def test_sixteen_bits_keep_their_range(kind):
    ramp = np.linspace(0, 65535, 256).astype(kind).reshape(16, 16)
    done = np.asarray(to_rgb(Image.fromarray(ramp)))
    assert done[0, 0].tolist() == [0] * 3
    assert done[-1, -1].tolist() == [255] * 3
    assert abs(int(done[8, 0, 0]) - 128) <= 1


def test_no_image_needs_more_than_576_tokens():
    for height, width in [(384, 384), (3, 5), (5000, 5000), (24, 4800), (100, 9000), (3000, 16)]:
        rows, columns = fit(height, width)
        assert rows % 16 == columns % 16 == 0
        assert 1 <= rows * columns // 256 <= 576


def test_what_cannot_be_read_is_refused():
    with pytest.raises(InputError, match="mode F"):
        to_rgb(Image.new("F", (16, 16)))
    with pytest.raises(InputError, match="factor of 200"):
        fit(1, 201)

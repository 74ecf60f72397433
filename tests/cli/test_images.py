"""Every kind of picture file is opened as RGB, or refused with a reason."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from foveate.cli.images import MIN_SIDE, open_image
from foveate.errors import InputError

PILLOWS_LIMIT = Image.MAX_IMAGE_PIXELS


def saved(folder, image, name="picture.png", **options):
    path = folder / name
    image.save(path, **options)
    return str(path)


def ramp(mode_dtype, top):
    return np.linspace(0, top, 13 * 17).reshape(13, 17).astype(mode_dtype)


def test_plain_picture_is_unchanged(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (13, 17, 3), np.uint8)
    opened = open_image(saved(tmp_path, Image.fromarray(pixels)))
    assert opened.mode == "RGB"
    assert np.array_equal(np.asarray(opened), pixels)


def test_cmyk_becomes_rgb(tmp_path):
    cyan = Image.new("CMYK", (17, 13), (255, 0, 0, 0))
    opened = open_image(saved(tmp_path, cyan, "cyan.tiff"))
    assert opened.getpixel((3, 3)) == (0, 255, 255)


@pytest.mark.parametrize("mode", ["L", "P", "1", "LA", "RGBA"])
def test_other_modes_become_rgb(tmp_path, mode):
    opened = open_image(saved(tmp_path, Image.new("RGB", (17, 13), "white").convert(mode)))
    assert opened.mode == "RGB"
    assert opened.getpixel((0, 0)) == (255, 255, 255)


def test_transparent_parts_are_white(tmp_path):
    opened = open_image(saved(tmp_path, Image.new("RGBA", (17, 13), (0, 0, 0, 0))))
    assert opened.getpixel((5, 5)) == (255, 255, 255)


def test_sixteen_bits_keep_their_range(tmp_path):
    opened = open_image(saved(tmp_path, Image.fromarray(ramp(np.uint16, 65535))))
    grey = np.asarray(opened)[..., 0].ravel().astype(int)
    assert (grey[0], grey[-1]) == (0, 255)
    assert 120 < grey[len(grey) // 2] < 135
    assert (np.diff(grey) >= 0).all()


def test_float_pictures_are_refused_by_name(tmp_path):
    path = saved(tmp_path, Image.fromarray(ramp(np.float32, 1.0)), "float.tiff")
    with pytest.raises(InputError, match=r"float\.tiff.*mode F"):
        open_image(path)


def test_one_pixel_is_enlarged(tmp_path):
    opened = open_image(saved(tmp_path, Image.new("RGB", (1, 1), (9, 90, 200))))
    assert opened.size == (MIN_SIDE, MIN_SIDE)
    assert opened.getpixel((7, 0)) == (9, 90, 200)


def test_upright_after_exif(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side
    path = saved(tmp_path, Image.new("RGB", (20, 10)), "phone.jpg", exif=exif)
    assert open_image(path).size == (10, 20)


def test_animation_gives_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (17, 13), colour) for colour in ("red", "blue")]
    path = saved(tmp_path, frames[0], "two.gif", save_all=True, append_images=frames[1:])
    assert open_image(path).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("name", ["cut.png", "cut.jpg", "cut.webp", "cut.gif", "cut.tiff"])
def test_truncated_files_are_refused(tmp_path, name):
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    path = saved(tmp_path, Image.fromarray(noise), name)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"damaged|cannot be read|not an image"):
        open_image(path)


@pytest.mark.parametrize("content", [b"", b"hello, this is text", b"\x89PNG\r\n\x1a\n"])
def test_files_that_are_no_pictures_are_refused(tmp_path, content):
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(InputError, match=r"x\.png"):
        open_image(str(tmp_path / "x.png"))


@pytest.mark.parametrize(
    ("path", "says"),
    [("nowhere.png", "no file"), (".", "not a file"), ("https://x.test/a.png", "download")],
)
def test_what_is_not_a_file_is_refused(path, says):
    with pytest.raises(InputError, match=says):
        open_image(path)


def png_header(width, height):
    """A PNG that claims a size and holds no pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"")))
    packed = (
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


@pytest.mark.parametrize("side", [10_000, 60_000])
def test_bombs_are_refused_before_they_are_unpacked(tmp_path, side):
    (tmp_path / "bomb.png").write_bytes(png_header(side, side))
    with pytest.raises(InputError, match="max-pixels"):
        open_image(str(tmp_path / "bomb.png"))
    assert Image.MAX_IMAGE_PIXELS == PILLOWS_LIMIT


def test_the_pixel_limit_can_be_raised_and_lowered(tmp_path):
    path = saved(tmp_path, Image.new("RGB", (100, 50)))
    assert open_image(path, max_pixels=5000).size == (100, 50)
    with pytest.raises(InputError, match="100 x 50"):
        open_image(path, max_pixels=4999)


def test_a_line_is_not_enlarged_beyond_the_limit(tmp_path):
    path = saved(tmp_path, Image.new("RGB", (4000, 1)))
    with pytest.raises(InputError, match="4000 x 1"):
        open_image(path, max_pixels=10_000)

"""Pictures come from data: addresses and allowed hosts, of sane size, and from nowhere else."""

import base64
import io
import struct
import zlib

import httpx
import pytest
from PIL import Image

from foveate.serve import Settings
from serving import Script, hello, messages, png, served

RED = Image.new("RGB", (40, 30), "red")


@pytest.fixture(scope="module")
def engine():
    return Script(hello)


@pytest.fixture(scope="module")
def url(engine):
    settings = Settings(pixels=1_000_000, picture_bytes=300_000, room_bytes=20_000_000)
    with served(engine, settings) as url:
        yield url


def ask(url, *addresses):
    body = {"model": "embedded", "messages": messages("HI", *addresses)}
    return httpx.post(f"{url}/v1/chat/completions", json=body)


def address(data, kind="image/png"):
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def saved(image, kind, **options):
    held = io.BytesIO()
    image.save(held, kind, **options)
    return held.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "1"])
def test_pictures_of_every_kind_arrive_upright_and_in_rgb(url, engine, kind, mode):
    image = RED.convert(mode)
    if (kind, mode) in (("JPEG", "RGBA"), ("JPEG", "P")):
        image = RED.convert("CMYK")
    assert ask(url, address(saved(image, kind), "image/anything")).status_code == 200
    part, _ = engine.seen[-1].messages[0]["content"]
    assert (part["image"].mode, part["image"].size) == ("RGB", (40, 30))
    turned = Image.Exif()
    turned[0x0112] = 6
    assert ask(url, address(saved(RED, "JPEG", exif=turned))).status_code == 200
    assert engine.seen[-1].messages[0]["content"][0]["image"].size == (30, 40)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(width, height):
    """Return a tiny PNG that says it is large."""
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    body = zlib.compress(b"\0" * 10_000_000, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "data",
    [
        bomb(1001, 1000),
        bomb(30_000, 30_000),
        bomb(2**31 - 1, 2**31 - 1),
        saved(Image.new("L", (1001, 1000)), "GIF"),
        saved(Image.new("L", (1001, 1000)), "JPEG"),
        saved(Image.effect_noise((900, 900), 99), "PNG"),
    ],
    ids=["one row too much", "bomb", "largest", "gif", "jpeg", "bytes"],
)
def test_pictures_that_are_too_large_are_refused_undecoded(url, data):
    answer = ask(url, address(data))
    error = answer.json()["error"]
    assert answer.status_code == 413, error
    assert (
        error["param"] == "messages.0.content.0.image_url" and "make it smaller" in error["message"]
    )


def test_many_large_pictures_are_refused_before_they_fill_the_memory(url):
    large = address(saved(Image.new("L", (1000, 1000)), "PNG"))
    assert ask(url, large, large).status_code == 200
    answer = ask(url, large, large, large)  # which no waiting would help
    assert answer.status_code == 413 and answer.json()["error"]["code"] == "request_too_large"
    assert ask(url, large).status_code == 200


def test_a_line_takes_room_for_what_it_becomes(url, engine):
    line = address(saved(Image.new("L", (15_000, 1)), "PNG"))  # 120,000 x 8 in memory
    assert ask(url, line, line).status_code == 200
    part, *_ = engine.seen[-1].messages[0]["content"]
    assert part["image"].size == (120_000, 8)
    assert ask(url, line, line, line).status_code == 413


def test_damaged_notes_about_a_picture_do_not_matter(url, engine):
    notes = Image.Exif()
    notes[0x0112] = 6
    notes.get_ifd(0x8825)[1] = "N"
    data = saved(RED, "JPEG", exif=notes)
    text, number = (b"\x00\x01\x00" + kind + b"\x00\x00\x00\x02N" for kind in (b"\x02", b"\x03"))
    assert text in data
    assert ask(url, address(data.replace(text, number))).status_code == 200
    assert engine.seen[-1].messages[0]["content"][0]["image"].size == (30, 40)


WHOLE = saved(Image.effect_noise((64, 64), 50), "PNG")


@pytest.mark.parametrize(
    "address",
    [
        "",
        "data:",
        "data:,hello",
        "data:image/png,hello",
        "data:image/png;base64,",
        "data:image/png;base64,####",
        "data:image/png;base64,aGVsbG8=",
        "data:text/html;base64,PHNjcmlwdD4=",
        address(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n"),
        address(saved(RED, "TIFF")),
        address(saved(RED, "BMP")),
        address(saved(RED, "PPM")),
        address(b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
        address(WHOLE[:60]),
        address(WHOLE[: len(WHOLE) // 2]),
        address(WHOLE[:40] + b"\xff" * 40 + WHOLE[80:]),
        address(saved(Image.new("L", (100_000, 1)), "PNG")),
        "file:///etc/passwd",
        "FILE:///etc/passwd",
        "/etc/passwd",
        "C:\\secret.png",
        "page.png",
        "ftp://example.org/a.png",
        "http://example.org/a.png",
        "https://example.org/a.png",
        "https://localhost/a.png",
        "gopher://x/",
        "javascript:alert(1)",
        "blob:https://x/y",
        "about:blank",
        "http:",
        "https://[::1",
        "https://exa mple.org:port/",
        "\x00",
    ],
    ids=lambda address: ascii(address[:24]),
)
def test_what_is_no_picture_is_refused_with_its_place(url, address):
    answer = ask(url, png(RED), address)
    error = answer.json()["error"]
    assert answer.status_code == 400, error
    assert error["param"] == "messages.0.content.1.image_url"
    assert "root:" not in answer.text and "Traceback" not in answer.text

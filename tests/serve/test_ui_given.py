"""What a person gives the live page in a real browser: pictures of all kinds, and a key."""

import base64
import io

import httpx
import pytest
from PIL import Image

from foveate import tiny
from foveate.serve import Engine, Settings
from foveate.tiny.documents import document
from serving import SEED, png, served

OWN = {"method": "aircache", "options": {"keep": 0.3}}
GIVE = """([kind, ...files]) => {
    for (const [data, type] of files) {
        const held = new DataTransfer();
        const bytes = Uint8Array.from(atob(data), (sign) => sign.charCodeAt(0));
        held.items.add(new File([bytes], "x", { type }));
        const more = { bubbles: true, cancelable: true };
        const event = kind === "paste"
            ? new ClipboardEvent(kind, { clipboardData: held, ...more })
            : new DragEvent(kind, { dataTransfer: held, ...more });
        document.querySelector("#question").dispatchEvent(event);
    }
}"""


@pytest.fixture(scope="module")
def url():
    with served(Engine(*tiny.load()), Settings(**OWN), ui=True) as url:
        yield url


def data(image):
    """Return the bytes of a picture as a browser's script takes them."""
    return png(image).partition(",")[2]


def test_pictures_are_dropped_and_pasted(visit, url):
    opened = visit(url)
    page = data(document(SEED).pages[0])
    for kind in ("drop", "paste"):
        opened.page.evaluate(GIVE, [kind, [page, "image/png"]])
        opened.page.wait_for_selector("img.sight")
        opened.page.reload()
    opened.page.evaluate(GIVE, ["drop", ["AAAA", "image/png"]])
    opened.page.locator("#verdict").filter(has_text="is not a picture").wait_for()
    opened.page.evaluate(GIVE, ["drop", [page, "image/bmp"]])  # which is drawn anew
    opened.page.wait_for_selector("img.sight")
    assert opened.page.get_attribute("img.sight", "src").startswith("data:image/jpeg")
    assert opened.said == []


def test_what_is_transparent_is_drawn_on_white(visit, url):
    opened = visit(url)
    clear = data(Image.new("RGBA", (40, 30), (0, 0, 0, 0)))
    opened.page.evaluate(GIVE, ["drop", [clear, "image/bmp"]])
    opened.page.wait_for_selector("img.sight")
    drawn = opened.page.get_attribute("img.sight", "src").partition(",")[2]
    assert Image.open(io.BytesIO(base64.b64decode(drawn))).getpixel((20, 15)) == (255, 255, 255)


def test_the_picture_that_was_given_last_stays(visit, url):
    opened = visit(url)
    large, small = (data(Image.new("RGB", (side, side), "red")) for side in (2_000, 40))
    opened.page.evaluate(
        """() => {
            const said = HTMLCanvasElement.prototype.toDataURL;
            HTMLCanvasElement.prototype.toDataURL = function (...kind) {
                window.drawn = true;
                return said.apply(this, kind);
            };
        }"""
    )
    opened.page.evaluate(GIVE, ["drop", [large, "image/bmp"], [small, "image/png"]])
    for _ in range(50):  # the page's policy lets no string be waited for
        opened.page.wait_for_timeout(100)
        if opened.page.evaluate("window.drawn"):
            break
    opened.page.wait_for_timeout(500)  # for it to come too late
    assert opened.page.evaluate("window.drawn")
    assert opened.page.evaluate("document.querySelector('img.sight').naturalWidth") == 40


def test_the_page_asks_for_the_key_and_forgets_it(visit, sheet):
    settings = Settings(**OWN, keys=("open-sesame",))
    with served(Engine(*tiny.load()), settings, ui=True) as url:
        opened = visit(url)
        opened.page.set_input_files("#file", sheet[0])
        opened.page.wait_for_selector("img.sight")
        opened.page.fill("#question", sheet[1])
        opened.page.click("#ask")
        opened.page.locator("#verdict").filter(has_text="wants an API key").wait_for()
        assert opened.page.evaluate("document.activeElement.id") == "key"
        opened.page.keyboard.type("öffne")  # which no header can say
        opened.page.keyboard.press("Enter")
        opened.page.locator("#verdict").filter(has_text="wants an API key").wait_for()
        opened.page.fill("#key", "open-sesame")
        opened.page.press("#budget", "Home")  # asks what was asked, with the new key
        opened.page.locator("#verdict").filter(has_text="full cache").wait_for(timeout=60_000)
        opened.page.focus("#key")
        opened.page.keyboard.press("Enter")
        opened.page.locator("#verdict").filter(has_text="full cache").wait_for(timeout=60_000)
        stored = "[localStorage.length, sessionStorage.length, document.cookie]"
        assert opened.page.evaluate(stored) == [0, 0, ""]
        assert httpx.post(f"{url}/ui/look", json={}).status_code == 401
        assert all("401" in line for line in opened.said)  # the browser's own words

"""The page on screens of any width, in any light, and on paper: what is painted, and what fits."""

import base64
import copy
import re

import numpy as np
import pytest
from PIL import Image, ImageDraw

from foveate.report import collect

ROWS, COLUMNS = 11, 13
SHADE = "getComputedStyle(document.body).backgroundColor"


@pytest.mark.parametrize("width", [320, 390, 768])
def test_nothing_scrolls_sideways(show, values, width):
    values["question"] = "Donaudampfschifffahrt" * 20
    values["model"] = "somebody/with-a-very-long-name-" * 6
    for run in values["runs"]:
        run["answer"] = "0123456789" * 30
        run["parts"] = [["said", run["answer"]]]
    opened = show(values, width=width, height=700)
    wide = "document.documentElement.scrollWidth"
    assert opened.page.evaluate(wide) <= width
    opened.page.get_by_text("The patches as a table").click()
    opened.page.get_by_text("The layers as a table").click()
    assert opened.page.evaluate(wide) <= width
    assert opened.said == []


def test_the_first_screen_holds_picture_answer_and_budget(show, comparison):
    for width, height in ((1280, 800), (390, 844)):
        opened = show(comparison, width, height)
        for place in ("h1", "#answer", "#sight", "#budget"):
            box = opened.page.locator(place).bounding_box()
            assert box["y"] >= 0 and box["y"] + box["height"] <= height, (place, width)


def test_a_tap_says_what_becomes_of_a_patch(show, comparison):
    opened = show(comparison, 390, 844, has_touch=True)
    box = opened.page.locator("#sight").bounding_box()
    cell = box["width"] / COLUMNS
    opened.page.touchscreen.tap(box["x"] + 4.5 * cell, box["y"] + 2.5 * cell)
    opened.wait("#caption", "Row 3, column 5: ")
    opened.page.touchscreen.tap(box["x"] + 4.5 * cell, box["y"] - 20)
    opened.wait("#caption", "on average")


@pytest.fixture(scope="module")
def painted(loaded):
    """A white picture with one red patch, and what is kept of it."""
    place = (7, 4)
    image = Image.new("RGB", (16 * COLUMNS, 16 * ROWS), "white")
    left, top = 16 * place[1], 16 * place[0]
    ImageDraw.Draw(image).rectangle((left, top, left + 15, top + 15), fill=(220, 0, 0))
    found = collect(loaded, [image], "AB?", ["random"], [0.5], max_new_tokens=1, measured=False)
    return place, found.to_dict()


def only(marks, count):
    """Pack marks of `count` layers and heads that all keep the same tokens."""
    packed = np.packbits(np.tile(np.asarray(marks, bool), count), bitorder="little")
    return base64.b64encode(packed.tobytes()).decode()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_painted_patch_shows_where_the_geometry_puts_it(show, painted, scheme):
    (row, column), values = painted
    (view,) = values["pictures"][0]["sheets"][0]["views"]
    token = view["cells"][row * view["columns"] + column]
    values = copy.deepcopy(values)
    run = values["runs"][0]
    run["heads"] = 1
    reds = {}
    for name, kept in (("alone", [token]), ("all others", set(range(143)) - {token})):
        marks = np.isin(np.arange(143), list(kept))
        run["kept_visual"] = only(marks, len(run["layers"]))
        opened = show(values, color_scheme=scheme)
        opened.change(method="random", budget="50 %")
        pixels = np.asarray(opened.shot(), int)
        red = (pixels[..., 0] > 190) & (pixels[..., 1] < 40) & (pixels[..., 2] < 40)
        reds[name] = red
    high, wide = reds["alone"].shape
    down, across = (axis.mean() for axis in reds["alone"].nonzero())
    assert int(down / high * ROWS) == row and int(across / wide * COLUMNS) == column
    assert reds["alone"].sum() > 0.6 * high * wide / ROWS / COLUMNS
    assert not reds["all others"].any()  # there it is blurred, faded and hatched


def test_dark_where_it_is_asked_for_and_light_in_print(show, comparison):
    opened = show(comparison, color_scheme="dark")
    assert max(map(int, re.findall(r"\d+", opened.page.evaluate(SHADE)))) < 40
    opened.page.emulate_media(media="print")
    assert min(map(int, re.findall(r"\d+", opened.page.evaluate(SHADE)))) > 240
    assert not opened.page.is_visible(".controls")
    assert opened.page.is_visible("#answer")


def test_paper_shows_all_that_a_screen_scrolls_to(show, values):
    values["full"]["answer"] = "one thing and another, " * 200
    for run in values["runs"]:
        run["answer"] = "nothing of that kind, " * 200
        run["parts"] = [["full", values["full"]["answer"]], ["said", run["answer"]]]
    values["prompt"] += [{"text": " word", "special": False}] * 2000
    opened = show(values, width=720)
    opened.page.emulate_media(media="print")
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= 720
    for place in ("#answer", ".prompt", ".told-here"):
        seen, whole = opened.page.eval_on_selector(
            place, "one => [one.clientHeight, one.scrollHeight]"
        )
        assert seen >= whole > 200, place
    for place in (".bar i", ".well i"):  # browsers leave grounds out when they print
        adjusted = opened.page.eval_on_selector(
            place, "one => getComputedStyle(one).printColorAdjust"
        )
        assert adjusted == "exact", place


def test_looks_are_discs_and_lost_ones_are_rings(show, comparison):
    opened = show(comparison)
    opened.change(method="snapkv", budget="1 %")
    before = np.asarray(opened.shot())
    opened.page.click("#looks")
    opened.page.wait_for_selector("#looks[aria-pressed=true]")
    assert "looked at, but not kept" in opened.text(".legend")
    assert not np.array_equal(before, np.asarray(opened.shot()))


def test_without_a_picture_there_is_a_grid(show, values):
    for name in ("src", "width", "height"):
        values["pictures"][0].pop(name)
    values["notes"] = ["nobody knows where"]
    opened = show(values)
    assert "nobody knows where" in opened.text(".stage")
    opened.change(method="snapkv", budget="10 %", layer=3, head=0)
    assert len(opened.shot().getcolors(1 << 24)) > 1
    assert opened.said == []

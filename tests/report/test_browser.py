"""The page in a real browser: what it shows and says, and what its controls change."""

import base64
import re

import numpy as np
import pytest

ROWS, COLUMNS = 11, 13
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"


def runs(comparison, method):
    return {run["budget"]: run for run in comparison.runs if run["method"] == method}


def first_number(text):
    return float(re.search(r"[\d.]+", text.replace(",", "")).group())


def test_it_opens_from_disk_and_asks_for_nothing(show, comparison):
    opened = show(comparison)
    assert opened.said == []
    assert [url for url in opened.asked if not url.startswith(("file:", "data:"))] == []
    assert len([url for url in opened.asked if url.startswith("file:")]) == 1
    assert opened.text("h1") == comparison.question


def test_the_slider_moves_what_is_kept(show, comparison):
    opened = show(comparison)
    opened.change(method="aircache")
    opened.page.focus("#budget")
    opened.page.keyboard.press("Home")
    known = runs(comparison, "aircache")
    for number, budget in enumerate(("1 %", "10 %", "50 %")):
        if number:
            opened.page.keyboard.press("ArrowRight")
        opened.wait("#caption", f", {budget}:")
        told = first_number(opened.text("#fact-tokens dd"))
        assert told == pytest.approx(known[budget]["visual_kept"], abs=0.5)
        assert opened.page.get_attribute("#budget", "aria-valuetext").startswith(f"{budget}, ")
        wrong = known[budget]["answer"] != comparison.full["answer"]
        assert ("Not what" in opened.text("#verdict")) == wrong
    opened.page.keyboard.press("End")
    opened.wait("#caption", "Full cache")
    assert first_number(opened.text("#fact-tokens dd")) == comparison.visual


def test_layers_and_heads_are_counted_apart(show, comparison):
    opened = show(comparison)
    run = runs(comparison, "snapkv")["10 %"]
    layers, count = len(run["layers"]), comparison.visual
    bits = np.unpackbits(
        np.frombuffer(base64.b64decode(run["kept_visual"]), np.uint8), bitorder="little"
    )
    marks = bits[: layers * 2 * count].reshape(layers, 2, count)
    opened.change(method="snapkv", budget="10 %")
    for layer, head in ((0, 1), (3, 0), (layers - 1, 1)):
        opened.page.locator("#layer").fill(str(layer + 1))
        opened.page.locator("#head").fill(str(head + 1))
        opened.wait("#caption", f"layer {layer}, head {head}:")
        assert first_number(opened.text("#fact-tokens dd")) == marks[layer, head].sum()
    opened.change(method="aircache")
    assert opened.page.is_disabled("#head")  # all heads keep the same


def test_a_patch_is_told_by_keyboard(show, comparison):
    opened = show(comparison)
    opened.change(method="snapkv", budget="10 %", layer=3, head=0)
    run = runs(comparison, "snapkv")["10 %"]
    bits = np.unpackbits(
        np.frombuffer(base64.b64decode(run["kept_visual"]), np.uint8), bitorder="little"
    )
    marks = bits[3 * 2 * comparison.visual :][: comparison.visual]
    row, column = ROWS // 2, COLUMNS // 2
    opened.page.focus("#sight")
    for key, down, right in (("Up", 0, 0), ("Up", -1, 0), ("Right", 0, 1), ("Down", 1, 0)):
        opened.page.keyboard.press(f"Arrow{key}")
        row, column = row + down, column + right
        told = opened.text("#caption")
        kept = marks[row * COLUMNS + column]
        assert told.startswith(f"Row {row + 1}, column {column + 1}: ")
        assert ("not kept" not in told) == kept
    opened.page.keyboard.press("Escape")
    assert opened.text("#caption").startswith("snapkv, 10 %")


def test_side_by_side_shows_every_run_and_chooses_it(show, comparison):
    opened = show(comparison)
    thumbs = opened.page.locator(".thumb")
    assert thumbs.count() == len(comparison.runs)
    names = [thumbs.nth(i).get_attribute("aria-label") for i in range(thumbs.count())]
    for run in comparison.runs:
        start = f"{run['method']}, {run['budget']}: {run['answer'] or '(nothing)'}"
        assert any(name.startswith(start) for name in names)
    opened.page.get_by_label("snapkv, 50 %").click()
    opened.wait("#caption", "snapkv, 50 %")
    assert opened.page.locator(".thumb[aria-pressed=true]").count() == 1


def test_bars_choose_a_layer_and_let_it_go(show, comparison):
    opened = show(comparison)
    opened.change(method="aircache", budget="10 %")
    bars = opened.page.locator(".layer")
    run = runs(comparison, "aircache")["10 %"]
    assert bars.count() == len(run["layers"])
    told = [first_number(bars.nth(i).get_attribute("aria-label").split(":")[1]) for i in range(6)]
    assert told == pytest.approx([one["visual"] for one in run["layers"]], abs=0.5)
    bars.nth(2).click()
    opened.wait("#caption", "layer 2:")
    bars.nth(2).click()
    opened.wait("#caption", "on average")


def test_tables_say_what_pictures_show(show, comparison):
    opened = show(comparison)
    opened.change(method="snapkv", budget="50 %")
    opened.page.get_by_text("The patches as a table").click()
    opened.page.wait_for_selector(".patches td")
    cells = opened.page.locator(".patches tbody td").all_inner_texts()
    assert len(cells) == comparison.visual
    mean = sum(map(float, cells)) / len(cells) / 100
    run = runs(comparison, "snapkv")["50 %"]
    assert mean == pytest.approx(run["visual_kept"] / comparison.visual, abs=0.01)
    rows = opened.page.locator("#numbers tbody tr")
    assert rows.count() == 1 + len(comparison.runs)
    assert f"{100 * run['fidelity']['mass']:.0f} %" in opened.text("#numbers")


def test_answers_are_told_apart_by_more_than_colour(show, values):
    values["runs"][0] |= {
        "answer": "a blue car", "parts": [["same", "a "], ["full", "red "], ["said", "blue "]]
    }  # fmt: skip
    opened = show(values)
    opened.change(method="aircache", budget="50 %")
    assert opened.text("#answer del").strip() == "red"
    assert opened.text("#answer ins").strip() == "blue"
    style = "one => getComputedStyle(one).textDecorationLine"
    assert opened.page.eval_on_selector("#answer del", style) == "line-through"
    assert opened.page.eval_on_selector("#answer ins", style) == "underline"
    assert opened.text("#verdict .sign") == "≠"


def test_hostile_words_are_only_words(show, values):
    values |= {"question": HOSTILE, "model": HOSTILE, "notes": [HOSTILE]}
    values["full"]["answer"] = HOSTILE
    values["prompt"][-1]["text"] = HOSTILE
    for run in values["runs"]:
        run |= {"answer": HOSTILE, "parts": [["said", HOSTILE]], "notes": [HOSTILE]}
        run["method"] += HOSTILE
    opened = show(values)
    assert opened.said == []
    assert opened.text("h1") == HOSTILE
    assert opened.page.locator("img, main script").count() == 0
    opened.page.locator(".thumb").nth(1).click()
    assert HOSTILE in opened.text("#answer")


def test_pictures_and_their_sheets_can_be_chosen(show, values):
    picture = values["pictures"][0]
    view = picture["sheets"][0]["views"][0]
    tiles = [
        {**view, "name": f"tile {i}", "box": [i / 2, 0, (i + 1) / 2, 1], "cells": view["cells"]}
        for i in range(2)
    ]
    sheets = [{"name": "2 tiles", "views": tiles}, picture["sheets"][0]]
    values["pictures"] = [picture, {**picture, "sheets": sheets}]
    opened = show(values)
    opened.page.get_by_role("button", name="Picture 2").click()
    opened.page.get_by_role("button", name="2 tiles").wait_for()
    opened.page.focus("#sight")
    opened.page.keyboard.press("ArrowUp")
    assert opened.text("#caption").startswith("tile 0, row ")
    opened.page.get_by_role("button", name="whole").click()
    assert opened.said == []


def test_a_failed_run_is_said_and_the_rest_is_there(show, values):
    kept = {"method": "aircache", "keep": 0.01, "budget": "1 %"}
    values["runs"] = [
        {**kept, "error": "too small"} if run["budget"] == "1 %" and run["method"] == "aircache"
        else run for run in values["runs"]
    ]  # fmt: skip
    opened = show(values)
    opened.change(method="aircache", budget="1 %")
    assert opened.text("#answer") == "too small"
    assert opened.said == []


def test_another_comparison_takes_the_place_of_the_first(show, values):
    opened = show(values)
    values |= {"question": "and now?", "version": "1"}
    opened.page.evaluate(
        """(data) => window.foveate.show(
            data, document.getElementById("page"), { method: "snapkv", budget: "50 %", layer: 2 }
        )""",
        values,
    )
    assert opened.text("h1") == "and now?"
    assert opened.text("#caption").startswith("snapkv, 50 %, layer 2: ")
    assert opened.page.locator("#sight").count() == 1
    assert opened.said == []


def test_another_format_is_refused(show, comparison):
    opened = show({**comparison.to_dict(), "format": 99})
    assert "format 1, not 99" in opened.text(".error")

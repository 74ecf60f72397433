"""The page by keyboard and by ear: what is reached, in which order, and what is said of it."""

import re

import numpy as np
import pytest


def test_every_control_is_reached_and_named(show, comparison):
    opened = show(comparison)
    opened.change(method="aircache")
    seen = set()
    for _ in range(60):
        opened.page.keyboard.press("Tab")
        seen.add(opened.page.evaluate("document.activeElement.id"))
    assert {"sight", "looks", "budget", "layer", "method-aircache"} <= seen
    nameless = opened.page.evaluate(
        """() => [...document.querySelectorAll("button, input, [role], [tabindex]")]
            .filter((one) => !(one.labels?.length || one.ariaLabel || one.textContent.trim()))
            .map((one) => one.outerHTML.slice(0, 80))"""
    )
    assert nameless == []
    assert opened.page.get_attribute("html", "lang") == "en"


def test_layers_and_small_pictures_are_one_stop_each(show, comparison):
    opened = show(comparison)
    opened.change(method="snapkv", budget="10 %")
    stops = "[...document.querySelectorAll('.layer, .thumb')].filter((one) => one.tabIndex === 0)"
    assert opened.page.evaluate(f"{stops}.length") == 1 + 2  # of layers, and of each method
    opened.page.locator(".layer").first.focus()
    for key in ("ArrowLeft", "ArrowRight", "ArrowRight", "Enter"):
        opened.page.keyboard.press(key)
    opened.wait("#caption", "snapkv, 10 %, layer 2: ")
    opened.page.locator("[role=toolbar][aria-label=aircache] .thumb").first.focus()
    opened.page.keyboard.press("ArrowRight")
    opened.page.keyboard.press("Enter")
    opened.wait("#caption", "aircache, 10 %, layer 2: ")
    for place in (".layer", ".thumb"):
        opened.page.locator(place).nth(1).focus()
    assert opened.page.evaluate(f"{stops}.length") == 1 + 2


def test_what_scrolls_is_reached_and_says_what_it_is(show, values):
    values["prompt"] += [{"text": " word", "special": False}] * 2000
    opened = show(values, width=390)
    for table in ("patches", "layers"):
        opened.page.get_by_text(f"The {table} as a table").click()
    regions = opened.page.locator("[role=region]")
    names = [regions.nth(i).get_attribute("aria-label") for i in range(regions.count())]
    assert sorted(names) == [
        "Table of all runs", "Table of the layers", "Table of the patches", "The prompt"
    ]  # fmt: skip
    lost = opened.page.evaluate(
        """() => [...document.querySelectorAll("main *")]
            .filter((one) => /auto|scroll/.test(getComputedStyle(one).overflowY)
                && (one.scrollHeight > one.clientHeight || one.scrollWidth > one.clientWidth))
            .filter((one) => one.tabIndex !== 0).map((one) => one.outerHTML.slice(0, 80))"""
    )
    assert lost == []


def test_arrow_keys_are_announced_and_what_they_find_is_said(show, comparison):
    opened = show(comparison)
    told = "Arrow keys go from patch to patch."
    assert opened.page.get_attribute("#sight", "aria-description") == told
    assert told not in opened.text("#caption")
    opened.page.keyboard.press("Tab")  # not `focus`, which is no keyboard
    assert opened.page.evaluate("document.activeElement.id") == "sight"
    assert opened.text("#caption").endswith(told)
    said = opened.page.locator(".stage [aria-live]")
    assert said.inner_text() == ""
    opened.page.keyboard.press("ArrowUp")
    assert said.inner_text() == opened.text("#caption") != ""
    opened.page.keyboard.press("Tab")
    assert said.inner_text() == ""
    assert told not in opened.text("#caption")


def test_a_slider_that_moves_is_told_once(show, comparison):
    opened = show(comparison)
    opened.change(method="snapkv", budget="50 %")
    opened.page.evaluate(
        """() => {
            window.told = [];
            const isLive = (one) => {
                const live = one.closest("[aria-live], output, [role=status]");
                return live && live.ariaLive !== "off" ? live : null;
            };
            new MutationObserver((all) => all.forEach(({ target }) => {
                const live = isLive(target.nodeType === 1 ? target : target.parentElement);
                if (live) window.told.push(live.className);
            })).observe(document.body, { childList: true, characterData: true, subtree: true });
        }"""
    )
    opened.page.focus("#budget")
    opened.page.keyboard.press("ArrowLeft")
    opened.wait("#caption", "snapkv, 10 %")
    assert {*opened.page.evaluate("window.told")} == {"told"}
    assert "answer" not in opened.page.get_attribute("#budget", "aria-valuetext")


def test_what_two_answers_do_not_share_is_said(show, values):
    values["runs"][0] |= {
        "answer": "a blue car", "parts": [["same", "a "], ["full", "red "], ["said", "blue "]]
    }  # fmt: skip
    opened = show(values)
    opened.change(method="aircache", budget="50 %")
    told = " ".join(opened.page.locator("#answer").aria_snapshot().split())
    assert re.search(r"full cache only:\) red.*here only:\) blue", told), told
    assert opened.page.locator("del[aria-label], ins[aria-label]").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_bars_stand_out_from_their_ground(show, comparison, scheme):
    """WCAG AA: 3 to 1 for what a picture tells with."""
    opened = show(comparison, color_scheme=scheme)
    opened.change(method="aircache", budget="10 %", layer=-1)
    pixels = np.asarray(opened.shot(".layer .well i"), float) / 255
    card = np.array(rgb(opened, ".card")) / 255
    bar, ground = (luminance(one) for one in (pixels[len(pixels) // 2, pixels.shape[1] // 2], card))
    assert (max(bar, ground) + 0.05) / (min(bar, ground) + 0.05) >= 3


def rgb(opened, place):
    found = opened.page.eval_on_selector(place, "one => getComputedStyle(one).backgroundColor")
    return [int(part) for part in re.findall(r"\d+", found)[:3]]


def luminance(colour):
    linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
    return float(linear @ np.array([0.2126, 0.7152, 0.0722]))


def test_what_is_chosen_shows_where_the_system_chooses_colours(show, comparison):
    opened = show(comparison, forced_colors="active")
    opened.change(method="snapkv", budget="10 %")
    outline = "one => getComputedStyle(one).outlineStyle"
    for place, kind in (("#method-snapkv + label", "solid"), ("#method-aircache + label", "none")):
        assert opened.page.eval_on_selector(place, outline) == kind
    pixels = np.asarray(opened.shot(".layer .well i"))
    assert {*map(tuple, pixels.reshape(-1, 3))} != {tuple(rgb(opened, ".card"))}


def test_nothing_moves_where_that_is_not_wanted(show, comparison):
    opened = show(comparison, reduced_motion="reduce")
    times = opened.page.evaluate(
        """() => [...document.querySelectorAll("main *")].flatMap((one) => {
            const { transitionDuration, animationName } = getComputedStyle(one);
            return [transitionDuration, animationName];
        })"""
    )
    assert {*times} == {"0s", "none"}

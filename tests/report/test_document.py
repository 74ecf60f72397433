"""The page as a file: nothing from outside, nothing hostile, and one policy that says so."""

import base64
import dataclasses
import hashlib
import json
import re

import pytest

from foveate.errors import InputError
from foveate.report import page, write
from foveate.report.document import check, script, style

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\u2028'\"&amp;"
SCRIPTS = re.compile(r"<script[^>]*>(.*?)</script>", re.DOTALL)


def test_data_cannot_end_its_element(comparison):
    text = page(dataclasses.replace(comparison, question=HOSTILE, model=HOSTILE))
    data, code = SCRIPTS.findall(text)
    assert json.loads(data)["question"] == HOSTILE
    assert "<" not in data and "&" not in data
    assert code == script()
    assert "<img" not in text and "alert(" not in text.replace(data, "").split("<title>")[0]
    title = re.search("<title>(.*?)</title>", text, re.DOTALL).group(1)
    assert "<" not in title


def test_the_policy_allows_this_style_and_this_script_alone(comparison):
    policy = re.search(r'Policy" content="([^"]*)"', page(comparison)).group(1)
    for kind, text in (("style", style()), ("script", script())):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy


def test_nothing_comes_from_outside(comparison):
    text = page(comparison)
    data, _ = SCRIPTS.findall(text)
    shell = text.replace(data, "").replace("http://www.w3.org/2000/svg", "")
    without_comments = re.sub(r"^\s*//.*$", "", shell, flags=re.MULTILINE)
    assert not re.findall(r"https?:|//[a-z]|@import|url\(|fetch\(|XMLHttp", without_comments)
    assert not re.findall(r"<(?:link|iframe|object|embed|base|form|img)\b", without_comments)
    assert all(one["src"].startswith("data:image/") for one in json.loads(data)["pictures"])


def test_scripts_make_no_markup_of_text():
    words = ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "Function(")
    assert not [word for word in words if word in script()]


def test_plain_values_make_the_same_page(comparison):
    assert page(json.loads(json.dumps(comparison.to_dict()))) == page(comparison)


def test_the_page_is_small(comparison):
    assert len(page(comparison).encode()) < 300_000


def test_files_that_cannot_be_written_are_named(comparison, tmp_path):
    with pytest.raises(InputError, match=r"nowhere.*may write to"):
        write(comparison, tmp_path / "nowhere" / "report.html")


def test_places_are_judged_before_anything_is_written(tmp_path):
    kept, new = tmp_path / "kept.html", tmp_path / "new.html"
    kept.write_text("mine")
    check(kept)
    check(new)
    assert kept.read_text() == "mine" and not new.exists()
    with pytest.raises(InputError, match="it is a folder"):
        check(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        check(tmp_path / "nowhere" / "report.html")


def test_colours_can_be_read():
    """WCAG AA: 4.5 to 1 for text, in light and in dark."""
    blocks = re.findall(r":root \{(.*?)\}", style(), re.DOTALL)[:2]
    for block in blocks:
        colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", block))
        for ground in ("paper", "card"):
            for ink in ("ink", "soft", "mark", "bad"):
                assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
        assert contrast(colours["mark"], colours["wash"]) >= 4.5
        assert contrast(colours["bad"], colours["bad-wash"]) >= 4.5


def contrast(one, other):
    low, high = sorted(map(luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
    return sum(w * x for w, x in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

"""Charts: alike on every run, named after their numbers, and readable on any ground."""

import json
import sys

import pytest

from foveate import bench
from foveate.bench import chart
from foveate.bench.subject import Chart, Line, Panel
from foveate.errors import InputError

CHART = Chart(
    "two panels",
    (
        Panel(
            "lines", "tokens", "ms", (Line("a", (1, 10), (2, 3), (1, 2), (3, 4)),), log="xy",
            rules={"goal": 2.5},
        ),
        Panel("rows", "ratio", "", (Line("b", (1.5,), (0,)),), names=("one",), rules={"limit": 1}),
    ),
)  # fmt: skip


def test_the_same_numbers_give_the_same_file(tmp_path):
    pages = []
    for name in ("a.svg", "b.svg"):
        chart.draw(CHART, tmp_path / "charts" / name, "sha256:" + "0" * 32)
        pages.append((tmp_path / "charts" / name).read_text())
    assert pages[0] == pages[1]
    for word in ("two panels", "goal", "limit", "tokens", "one", ">a<", ">b<"):
        assert word in pages[0]
    assert "dc:date" not in pages[0]


def test_a_chart_says_which_numbers_it_shows(tmp_path):
    source = chart.fingerprint('{"a": 1}')
    assert source != chart.fingerprint('{"a": 2}')
    chart.draw(CHART, tmp_path / "a.svg", source)
    assert chart.drawn_from(tmp_path / "a.svg") == source
    (tmp_path / "b.svg").write_text("<svg/>")
    assert chart.drawn_from(tmp_path / "b.svg") is None


def test_ground_is_clear_and_text_is_of_middle_lightness(tmp_path):
    chart.draw(CHART, tmp_path / "a.svg", "")
    page = (tmp_path / "a.svg").read_text()
    assert "fill: #ffffff" not in page and "fill: #000000" not in page
    assert chart.GREY in page


@pytest.mark.parametrize(
    ("text", "says"),
    [("{", "cannot be read"), ("[]", "holds no numbers"), ('{"what": "x"}', "decode, prefill")],
)
def test_files_that_are_none_of_ours_are_refused(tmp_path, text, says):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match=says):
        chart.draw_file(tmp_path / "a.json", tmp_path / "a.svg")
    assert not (tmp_path / "a.svg").exists()


def test_without_matplotlib_the_cure_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"foveate\[charts\]"):
        chart.draw(CHART, tmp_path / "a.svg", "")


def test_committed_numbers_can_be_drawn(tmp_path):
    paths = sorted((bench.root() / "benchmarks" / "results").glob("*.json"))
    paths = [path for path in paths if json.loads(path.read_text()).get("what") in bench.SUBJECTS]
    assert paths
    for path in paths:
        chart.draw_file(path, tmp_path / f"{path.stem}.svg")
        assert (tmp_path / f"{path.stem}.svg").stat().st_size < 200_000

"""The subject `papers`: what the papers print, and the same points measured small."""

import json

import pytest
import torch

from foveate import bench
from foveate.bench import papers, published, shapes
from foveate.bench.published import BYTES, DECODE, FULL, GRIDS, PEAK, PREFILL, RATE, TOTAL
from foveate.errors import InputError

SUBJECT = bench.SUBJECTS["papers"]
SMALL = papers.papers_setting(
    by=32, rounds=2, grids=("aircache-qwen2-vl", "lookm", "mixkv"), tokens=(2048, 3072, 8192)
)


@pytest.fixture(scope="module")
def heard():
    return []


@pytest.fixture(scope="module")
def result(heard):
    """Measure a few points with very small models, and note what was heard of them."""
    found = json.loads(json.dumps(SUBJECT.measure(SMALL, heard.append)))
    return {"what": "papers", "setting": SMALL.to_dict(), "cases": found}


@pytest.mark.parametrize("name", [name for name in GRIDS if name.startswith("aircache")])
def test_printed_rates_follow_from_printed_seconds(name):
    grid = GRIDS[name]
    wrong = []
    for point in grid.points:
        for variant, seconds in point.figures[DECODE].items():
            if point.figures[RATE][variant] != pytest.approx(
                point.batch * grid.steps / seconds, rel=0.03
            ):
                wrong.append((point.batch, point.prompt, variant))
    # what the notes on the grid say is a misprint
    assert wrong == ([(8, 32768, "10 %")] if name == "aircache-qwen2-vl" else [])


def test_grids_are_whole():
    for name, grid in GRIDS.items():
        assert grid.model in shapes.SHAPES, name
        assert grid.source, name
        lengths = {(point.batch, point.prompt) for point in grid.points}
        assert len(lengths) == len(grid.points)
        if name.startswith("aircache"):
            units = [(8, 2), (8, 8), (8, 16), (8, 32), (16, 2), (16, 8), (16, 16)]
            assert lengths == {(batch, 1024 * unit) for batch, unit in units}


def test_ratios_of_a_paper():
    point = GRIDS["lookm"].points[0]
    twenty = GRIDS["lookm"].variants[0]
    assert point.ratio(DECODE, twenty) == pytest.approx(20.98 / 28.16)
    assert point.ratio(BYTES, twenty) == pytest.approx(0.32 / 1.52)
    assert point.ratio(PREFILL, twenty) is None
    mixed = GRIDS["mixkv"].variants[1]
    assert mixed.over == "SnapKV"
    assert GRIDS["mixkv"].points[0].ratio(TOTAL, mixed) == 1.01


def test_every_point_is_measured(result, heard):
    assert heard == list(result["cases"]) == [
        "aircache-qwen2-vl: 8 x 2,048", "aircache-qwen2-vl: 8 x 8,192",
        "aircache-qwen2-vl: 16 x 2,048", "aircache-qwen2-vl: 16 x 8,192",
        "lookm: 1 x 3,072", "mixkv: 1 x 8,192",
    ]  # fmt: skip
    assert len(heard) == SUBJECT.ticks(SMALL)
    numbers = result["cases"]["aircache-qwen2-vl: 16 x 8,192"]
    assert numbers["measured"] == {"batch": 16, "prompt": 256, "steps": 16}
    assert set(numbers[PREFILL]) == set(numbers[RATE]) == {FULL, "50 %", "10 %"}
    assert numbers[PREFILL][FULL]["count"] == 2
    for variant in ("50 %", "10 %"):
        assert numbers["ratios"][variant][PREFILL]["count"] == 2
        assert numbers["ratios"][variant][DECODE]["count"] == 2
    assert numbers[DECODE][FULL] * numbers[RATE][FULL] == pytest.approx(16 * 16)


def test_bytes_are_those_of_the_shapes(result):
    shape = shapes.scaled(shapes.SHAPES["Qwen2-VL-7B"], 32)
    token = 2 * 4 * shape.layers * shape.kv_heads * shape.width
    numbers = result["cases"]["aircache-qwen2-vl: 8 x 8,192"]
    assert numbers["bytes"][FULL] == token * 8 * (256 + 16 / 2)  # mean over the run
    share = {name: numbers["ratios"][name][BYTES]["median"] for name in ("50 %", "10 %")}
    assert 0.5 < share["50 %"] < 0.6 and 0.1 < share["10 %"] < 0.25
    weights, held = numbers["bytes_of_weights"], numbers["bytes"]
    expected = (weights + held["10 %"]) / (weights + held[FULL])
    assert numbers["roofline"]["10 %"] == pytest.approx(expected)
    least = numbers["least_milliseconds"]
    assert least["10 %"] / least[FULL] == pytest.approx(expected)


def test_mixkv_stands_beside_its_host(result):
    numbers = result["cases"]["mixkv: 1 x 8,192"]
    ratios = numbers["ratios"]["SnapKV + MixKV"]
    assert ratios[BYTES]["median"] == pytest.approx(1, abs=0.02)
    assert numbers["paper"]["SnapKV + MixKV"] == {TOTAL: 1.01, PEAK: 1.0}
    assert numbers["paper"]["SnapKV"] == {}


def test_table_has_the_paper_beside_what_was_measured(result):
    table = SUBJECT.table(result)
    assert len(table["rows"]) == 4 * 2 + 2 + 4
    assert all(len(row) == len(table["columns"]) for row in table["rows"])
    assert table["columns"][1].endswith("all but batch / 32")
    first = dict(zip(table["columns"], table["rows"][0], strict=True))
    assert (first["grid"], first["kept"]) == ("aircache-qwen2-vl", "50 %")
    assert first["prefill"].endswith("; paper 1.18")
    assert first["decode"].endswith("; paper 0.79")
    assert "paper" not in first["both times"] and first["peak"] == "-"
    last = dict(zip(table["columns"], table["rows"][-1], strict=True))
    assert last["kept"] == "AdaKV + MixKV / AdaKV"
    assert last["both times"].endswith("; paper 1.01") and last["peak"] == "-; paper 1.00"


def test_chart_has_a_panel_per_grid(result):
    panels = SUBJECT.chart(result).panels
    assert [panel.title for panel in panels] == list(SMALL.grids)
    assert [line.name for line in panels[0].lines] == ["measured", "paper", "bytes alone"]
    assert len(panels[0].names) == len(panels[0].lines[0].x) == 8
    assert [line.name for line in panels[2].lines] == ["measured", "paper"]
    assert [len(line.x) for line in panels[2].lines] == [4, 2]


def test_a_point_that_does_not_fit_is_a_row_that_says_so(monkeypatch):
    def full(*words):
        raise torch.OutOfMemoryError("CUDA out of memory.\nmore")

    monkeypatch.setattr(papers, "_taken", full)
    setting = papers.papers_setting(by=32, grids=("lookm",))
    result = {"setting": setting.to_dict(), "cases": SUBJECT.measure(setting, lambda _: None)}
    rows = SUBJECT.table(result)["rows"]
    assert [row[3] for row in rows] == ["CUDA out of memory."] * 2
    assert all(len(row) == 10 for row in rows)
    assert SUBJECT.chart(result).panels == ()


def test_the_rule_of_division_is_in_the_file(result):
    assert "divided by `by`" in result["setting"]["rule"]
    whole = SUBJECT.setting(device="cuda")
    assert (whole.by, whole.dtype, whole.to_dict()["rule"]) == (1, "bfloat16", "full size")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"grids": ("aircache",)}, "aircache-qwen2-vl"),
        ({"tokens": (100,)}, "choose of 2048, 3072, 8192"),
        ({"dtype": "int8"}, "bfloat16"),
        ({"by": 3}, "choose one of 1, 2"),
    ],
)
def test_settings_that_cannot_be_measured_are_refused(options, says):
    with pytest.raises(InputError, match=says):
        SUBJECT.setting(**options)


def test_a_method_of_every_variant_exists():
    for grid in GRIDS.values():
        names = [published.FULL, *(variant.name for variant in grid.variants)]
        assert all(variant.over in names for variant in grid.variants)

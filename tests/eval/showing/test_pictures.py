"""Pictures: numbers are those of the prompts they look at, and charts show the numbers."""

import json
from dataclasses import replace
from pathlib import Path

import charts as drawing
import pytest
import torch
from scipy.spatial.distance import jensenshannon

from foveate.cli.models import load
from foveate.eval.entry import Entry
from foveate.eval.showing import pictures
from foveate.eval.showing.looks import COVERING, SHARING, Looks, averaged, divergence, plane

ROOT = Path(__file__).resolve().parents[3]
LAYERS, HEADS, TOKENS, KEPT = 6, 2, 256, 26


@pytest.fixture(scope="module")
def looks():
    return Looks(load(attn="eager"), 2)


@pytest.fixture(scope="module")
def result(looks):
    return json.loads(json.dumps(pictures.looked(replace(looks, number=1))))


def test_attention_goes_somewhere(result):
    for rows in ("question", "answer"):
        parts = [v for name, v in result["attention"].items() if name.startswith(rows)]
        assert len(parts) == 3 and all(len(part) == LAYERS for part in parts)
        assert all(sum(layer) == pytest.approx(1, abs=1e-4) for layer in zip(*parts, strict=True))


def test_budgets_are_what_is_kept_in_all(result):
    assert {*result["budgets"]} == {entry.label for entry in SHARING}
    for layers in result["budgets"].values():
        assert sum(layers) == pytest.approx(round(0.1 * TOKENS * LAYERS), abs=1.01)


def test_coverage_shows_one_head(result):
    cover = result["coverage"]
    assert len(cover["points"]) == TOKENS and 0 < cover["variance"] <= 1
    assert {*cover["kept"]} == {entry.label for entry in COVERING}
    for name, kept in cover["kept"].items():
        assert sorted({*kept}) == sorted(kept) and {*kept} <= {*range(TOKENS)}
        assert len(kept) == KEPT or name == "aircache"


def test_numbers_are_means_of_prompts():
    pages = [{"a": [1.0, 3.0], "b": [[0.5]]}, {"a": [3.0, 4.0], "b": [[1.0]]}]
    assert averaged(pages) == {"a": [2.0, 3.5], "b": [[0.75]]}


def test_redundancy_is_the_mean_cosine(looks, result):
    page = looks.seen(looks.samples(looks.task)[0])
    keys = page.keys[3][1][~page.visual]
    pairs = [
        torch.nn.functional.cosine_similarity(a, b, 0).item()
        for i, a in enumerate(keys)
        for j, b in enumerate(keys)
        if i != j
    ]
    assert looks.redundancies(page)["text"][3][1] == pytest.approx(sum(pairs) / len(pairs))
    for rows in result["redundancy"].values():
        assert [len(row) for row in rows] == [HEADS] * LAYERS


def test_distances_are_to_the_nearest_kept_key(looks):
    page, entry = looks.seen(looks.samples(looks.task)[1]), Entry("random")
    kept = looks.kept(page, entry)
    far = list(looks.distances([page], entry))
    keys = page.keys[2][1][page.visual]
    wanted = [
        min(1 - torch.nn.functional.cosine_similarity(k, keys[i], 0).item() for i in kept[2][1])
        for k in keys
    ]
    assert far[2 * HEADS + 1] == pytest.approx(sum(wanted) / TOKENS, abs=1e-5)


def test_divergence_is_that_of_scipy():
    made = torch.Generator().manual_seed(3)
    for _ in range(5):
        one, other = torch.rand(2, 7, generator=made).double().tolist()
        other[2] = 0.0
        assert divergence(one, other) == pytest.approx(jensenshannon(one, other, 2) ** 2)


def test_a_plane_holds_the_main_axes():
    made = torch.Generator().manual_seed(5)
    flat = torch.randn(31, 2, generator=made) @ torch.randn(2, 11, generator=made)
    points, share = plane(flat)
    assert share == pytest.approx(1, abs=1e-4)
    assert plane(flat)[0] == points
    distances = torch.cdist(torch.tensor(points), torch.tensor(points))
    assert torch.allclose(distances, torch.cdist(flat, flat).double().float(), atol=0.01)


def test_tables_follow_from_the_numbers(result):
    table = result["tables"]["table-14"]
    assert [row[:2] for row in table["rows"][:2]] == [
        ["10%", "uniform and strength"],
        ["10%", "uniform and skewness"],
    ]
    first = result["divergences"]["10%"]["uniform and strength"]
    assert table["rows"][0][2:] == [f"{first[name]:.3f}" for name in pictures.DIVERGING]
    far = [float(row[1]) for row in result["tables"]["distance"]["rows"]]
    assert far == sorted(far) and len(far) == len(COVERING)


def test_four_pictures_are_drawn(result):
    drawn = pictures.charts(result)
    assert [*drawn] == ["-redundancy", "-coverage", "-budgets", "-attention"]
    assert len(drawn["-coverage"].panels) == len(COVERING)
    kept = drawn["-coverage"].panels[0].lines[1]
    assert kept.loose and len(kept.x) == KEPT


def test_scores_are_drawn_over_budgets():
    path = ROOT / "benchmarks" / "results" / "eval-headline.json"
    chart = drawing.charts(path)[""]
    result = json.loads(path.read_text())
    cells = {(c["task"], c["entry"], c["keep"]): c for c in result["cells"]}
    for panel in chart.panels:
        for line in panel.lines:
            assert sorted(line.x) == [*line.x]
            for x, y, low, high in zip(line.x, line.y, line.low, line.high, strict=True):
                cell = cells[panel.title, line.name, f"{x / 100:g}"]
                told = [float(letter) for letter in cell["scores"] if letter != "x"]
                assert y == pytest.approx(100 * sum(told) / len(told))
                assert low - 1e-9 <= y <= high + 1e-9
        assert [*panel.rules] == ["full cache"]


def test_what_failed_wholly_is_not_drawn():
    path = ROOT / "benchmarks" / "results" / "eval-headline.json"
    result = json.loads(path.read_text())
    task = result["cells"][0]["task"]
    for cell in result["cells"]:
        gone = cell["task"] == task and (cell["entry"], cell["keep"]) in (
            ("full", "1.0"), ("snapkv", "0.1"),
        )  # fmt: skip
        if gone:
            cell["scores"] = "x" * len(cell["scores"])
    (panel,) = (one for one in pictures.charts(result)[""].panels if one.title == task)
    (line,) = (one for one in panel.lines if one.name == "snapkv")
    assert panel.rules == {} and len(line.x) == len(panel.lines[0].x) - 1 and 10 not in line.x


def test_what_attention_was_asked_for_is_drawn_with_what_came_of_it():
    path = ROOT / "benchmarks" / "results" / "eval-auto.json"
    kept, right = drawing.charts(path)[""].panels
    assert [line.name for line in kept.lines] == [line.name for line in right.lines]
    cells: dict[str, list[dict[str, object]]] = {}
    for cell in json.loads(path.read_text())["cells"]:
        cells.setdefault(cell["entry"], []).append(cell)
    label = {"in": "{} {:.0f}% in every layer", "over": "{} {:.0f}% over the model"}
    for stored, told in zip(kept.lines, right.lines, strict=True):
        method, kind = stored.name.split(", ")
        assert stored.x == told.x == tuple(sorted(stored.x)) and len(stored.x) >= 3
        for x, share, middle in zip(stored.x, stored.y, told.y, strict=True):
            mine = cells[label[kind.split()[0]].format(method, x)]
            assert share == pytest.approx(sum(c["kept"] for c in mine) / len(mine))
            letters = "".join(c["scores"] for c in mine)
            assert middle == pytest.approx(100 * letters.count("1") / len(letters))
    assert kept.rules == {} and [*right.rules] == ["full cache"]


def test_measures_are_drawn_over_places():
    path = ROOT / "benchmarks" / "results" / "eval-aircache-single.json"
    chart = drawing.charts(path)[""]
    cells = {(c["task"], c["entry"], c["keep"]): c for c in json.loads(path.read_text())["cells"]}
    assert len(chart.panels) == 4
    for panel in chart.panels:
        assert (panel.across, panel.up, panel.rules) == ("place in the order", "kl", {})
        for line in panel.lines:
            assert line.x == (1, 2, 4, 8, 16, 32, 64, 128) and not line.low
            wanted = [cells[panel.title, line.name, f"{x:g}"]["measures"]["kl"] for x in line.x]
            assert list(line.y) == pytest.approx(wanted)

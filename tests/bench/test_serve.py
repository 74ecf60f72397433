"""The subject `serve`: clients of an engine with few bytes, full caches beside compressed ones."""

import pytest

from foveate import bench
from foveate.bench import serve
from foveate.errors import CacheError, InputError

SUBJECT = bench.SUBJECTS["serve"]
SMALL = serve.ServeSetting(
    layers=2, hidden=64, side=8, fit=4, clients=(1, 8), asks=2, answer=12, chunk=None, rounds=1
)


@pytest.fixture(scope="module")
def result():
    told = []
    cases = serve.measure_serve(SMALL, told.append)
    assert len(told) == SUBJECT.ticks(SMALL)
    return {"what": "serve", "setting": SMALL.to_dict(), "cases": cases}


def test_more_compressed_answers_fit_and_no_byte_too_many_is_held(result):
    held = result["cases"]["8"]["held"]
    assert held["full"]["most"] == SMALL.fit
    assert held["compressed"]["most"] == 8
    assert held["compressed"]["stored"] < 0.5 * held["full"]["stored"]
    for case in result["cases"].values():
        for name in ("full", "compressed"):
            assert 0 < case["held"][name]["peak"] <= case["held"][name]["budget"]
    assert result["cases"]["1"]["held"]["compressed"]["most"] == 1


def test_the_table_has_a_row_for_each_cache_and_the_chart_a_line(result):
    table = SUBJECT.table(result)
    assert [row[:3] for row in table["rows"]] == [
        ["1", "full", "1"],
        ["1", "10% kept", "1"],
        ["8", "full", "4"],
        ["8", "10% kept", "8"],
    ]
    assert all(len(row) == len(table["columns"]) for row in table["rows"])
    ratio = result["cases"]["8"]["ratios"]["compressed / full"]["median"]
    assert table["rows"][3][4] == f"{1 / ratio:.2f}"
    speed, most = SUBJECT.chart(result).panels
    assert [line.name for line in speed.lines] == ["full", "10% kept"]
    assert most.lines[1].y == (1.0, 8.0)
    for line in speed.lines:
        for low, median, high in zip(line.low, line.y, line.high, strict=True):
            assert low <= median <= high


def test_a_request_that_fails_is_told_of_in_place_of_numbers(monkeypatch):
    asked = serve._Asked(SMALL)
    asked.budget = 1
    with pytest.raises(CacheError, match="0 of 2 requests ended"):
        asked.run(serve.FULL, 1)


def test_a_share_that_is_none_is_refused():
    with pytest.raises(InputError, match="keep"):
        serve.serve_setting(keep=1.5)

"""Tables of a model: what is written is read back, and everything else is refused with a reason."""

import json
import math

import pytest

from foveate.calibration.tables import KINDS, load_table, save_table
from foveate.errors import InputError, MethodError


def content(kind, **changes):
    """A table of 3 layers, 4 query heads, 2 key-value heads."""
    numbers = {
        "heads": [[0.1, 0.2, 0.0, 0.0], [0.0, 0.0, 0.3, 0.1], [0.0, 0.1, 0.1, 0.1]],
        "redundancy": [[0.5, 0.6], [-0.01, 1.0], [0.7, 0.8]],
        "sizes": [0.1, 0.25, 1.0],
    }
    shape = {"layers": 3, "query_heads": 4, "kv_heads": 2}
    head = {"format": f"foveate-{kind}", "version": 1, "model": "org/some-model"}
    return {**head, **shape, KINDS[kind].field: numbers[kind], **changes}


@pytest.fixture
def written(tmp_path):
    """Write anything as JSON and return its path."""

    def write(value):
        path = tmp_path / "table.json"
        path.write_text(value if isinstance(value, str) else json.dumps(value))
        return path

    return write


@pytest.mark.parametrize("kind", KINDS)
def test_round_trip(kind, tmp_path):
    path = tmp_path / "table.json"
    save_table(path, content(kind, keep=0.1))
    table = load_table(path, kind)
    assert (table.kind, table.model, table.keep) == (kind, "org/some-model", 0.1)
    assert (table.layers, table.query_heads, table.kv_heads) == (3, 4, 2)
    rows = content(kind)[KINDS[kind].field]
    assert table.values == tuple(tuple(r) if isinstance(r, list) else (r,) for r in rows)
    assert load_table(str(path), kind) == table
    assert hash(table) == hash(load_table(path, kind))
    assert eval(repr(table), {"Table": type(table)}) == table
    assert [one.name for one in tmp_path.iterdir()] == ["table.json"]


def test_groups_and_layers(written):
    heads = load_table(written(content("heads")), "heads")
    assert heads.per_kv_head == ((0.1 + 0.2, 0.0), (0.0, 0.4), (0.1, 0.2))
    assert heads.per_layer == pytest.approx((0.3, 0.4, 0.3))
    redundancy = load_table(written(content("redundancy")), "redundancy")
    assert redundancy.per_kv_head == redundancy.values
    sizes = load_table(written(content("sizes")), "sizes")
    assert sizes.per_layer == (0.1, 0.25, 1.0)
    assert sizes.per_kv_head == ((0.1, 0.1), (0.25, 0.25), (1.0, 1.0))


NAN, INF = math.nan, math.inf
WRONG = [
    ("not json", "not JSON"),
    ("[" * 100_000, "not JSON"),
    ("9" * 6000, "not JSON"),
    ([1], "holds a list"),
    (content("sizes"), "'foveate-heads'"),
    (content("heads", version=2), "version 2"),
    (content("heads", model=""), "model is ''"),
    (content("heads", model=3), "model is 3"),
    (content("heads", layers=0), "layers is 0"),
    (content("heads", layers=True), "layers is True"),
    (content("heads", kv_heads=3), "do not divide"),
    (content("heads", layers=2), "for 3 layers; 4 for each of 2"),
    (content("heads", layers=10**13), "4 for each of 10000000000000"),
    (content("heads", scores=[[10**400, 0, 0, 0]] * 3), "numbers from 0 to 1e.30"),
    (content("heads", scores=[[1e308] * 4] * 3), "numbers from 0 to 1e.30"),
    (content("heads", query_heads=2), "2 for each of 3"),
    (content("heads", scores=[[1, 2, 3, 4], [1, 2], [1, 2, 3, 4]]), r"rows of \[2, 4\]"),
    (content("heads", scores=None), "rows of no numbers"),
    (content("heads", scores={"0-0": 1}), "rows of no numbers"),
    (content("heads", scores=[[NAN, 0, 0, 0]] * 3), "nan"),
    (content("heads", scores=[[INF, 0, 0, 0]] * 3), "inf"),
    (content("heads", scores=[[-0.1, 1, 0, 0]] * 3), "-0.1"),
    (content("heads", scores=[[True, 1, 0, 0]] * 3), "True"),
    (content("heads", scores=[["1", 1, 0, 0]] * 3), "'1'"),
    (content("heads", scores=[[0, 0, 0, 0]] * 3), "all scores are zero"),
    (content("heads", keep=-1), "keep is -1"),
]


@pytest.mark.parametrize(("value", "words"), WRONG)
def test_what_cannot_be_used_is_refused(value, words, written):
    path = written(value)
    with pytest.raises(MethodError, match=words) as caught:
        load_table(path, "heads")
    assert str(path) in str(caught.value)
    assert "`foveate heads`" in str(caught.value)


def test_ranges_differ_by_kind(written):
    with pytest.raises(MethodError, match=r"-1\.5.*from -1 to 1"):
        load_table(written(content("redundancy", redundancy=[[-1.5, 0]] * 3)), "redundancy")
    with pytest.raises(MethodError, match=r"1\.5.*from 0 to 1"):
        load_table(written(content("sizes", shares=[0.1, 0.1, 1.5])), "sizes")


def test_missing_files_folders_and_kinds(tmp_path):
    with pytest.raises(MethodError, match=r"No such file.*`foveate calibrate sizes`"):
        load_table(tmp_path / "none.json", "sizes")
    with pytest.raises(MethodError, match="cannot be read"):
        load_table(tmp_path, "heads")
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(MethodError, match="cannot be read"):
        load_table(tmp_path / "bytes.json", "heads")
    with pytest.raises(MethodError, match="heads, redundancy, sizes"):
        load_table(tmp_path, "sices")


def test_a_table_of_another_model(written):
    table = load_table(written(content("heads")), "heads")
    table.check("org/some-model", 3, 4, 2)
    table.check("/copies/Some-Model/", 3, 4, 2)
    table.check(None, 3, 4, 2)
    table.check("", 3, 4, 2)
    with pytest.raises(MethodError, match=r"\(3, 4, 2\).*\(28, 28, 4\).*`foveate heads`"):
        table.check(None, 28, 28, 4)
    with pytest.raises(MethodError, match=r"org/some-model.*org/other.*`foveate heads`"):
        table.check("org/other", 3, 4, 2)


def test_nothing_half_written_stays(tmp_path):
    path = tmp_path / "table.json"
    save_table(path, content("sizes"))
    before = path.read_text()
    with pytest.raises(MethodError, match="zero"):
        save_table(path, content("sizes", shares=[0, 0, 0]))
    assert path.read_text() == before
    with pytest.raises(InputError, match="cannot be written"):
        save_table(tmp_path / "none" / "table.json", content("sizes"))

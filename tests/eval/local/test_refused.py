"""Bad files and rows are refused with the place and the cure."""

import re
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from foveate.errors import InputError, MissingExtra
from foveate.eval.local import local_task
from foveate.eval.local.shapes import SHAPES
from questions import all_of, mile, png, row


def refused(task):
    with pytest.raises(InputError) as caught:
        all_of(task)
    return str(caught.value)


# Files that cannot be read.


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.json", "[{]", r"a\.json, line 1, column 3: .*not JSON"),
        ("a.json", '[\n{"a": 1},\n{"b" 2}]', r"a\.json, line 3, column 6"),
        ("a.jsonl", '{"a": 1}\n\n{"a": }\n', r"a\.jsonl, line 3, column 7"),
        ("a.jsonl", '{"a": 1}\n[1]\n', r"a\.jsonl, line 2: no object"),
        ("a.json", "", r"a\.json has no rows"),
        ("a.json", "[]", r"a\.json has no rows"),
        ("a.jsonl", "\n \n", r"a\.jsonl has no rows"),
        ("a.json", "[1, 2]", r"no list of objects"),
        ("a.json", '{"rows": []}', r'under "data"'),
        ("a.parquet", "PAR1 no", r"a\.parquet cannot be read as Parquet"),
        ("a.csv", "a,b", r"a\.csv is no table.*\.jsonl"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(folder, name, text, says):
    (folder / name).write_text(text)
    with pytest.raises(InputError, match=says):
        local_task(folder / name)


def test_a_file_in_another_encoding_is_refused(folder):
    (folder / "a.json").write_bytes('[{"q": "é"}]'.encode("latin-1"))
    with pytest.raises(InputError, match=r"not UTF-8.*save it as UTF-8"):
        local_task(folder / "a.json")


def test_an_empty_parquet_file_is_refused(folder):
    pq.write_table(pa.table({"image": pa.array([], pa.string())}), folder / "a.parquet")
    with pytest.raises(InputError, match="has no rows"):
        local_task(folder / "a.parquet")


def test_a_folder_without_a_table_is_refused(folder):
    with pytest.raises(InputError, match="holds no table; put one"):
        local_task(folder)


@pytest.mark.parametrize("other", ["one.json", "val-00000-of-00002.parquet"])
def test_a_folder_with_two_tables_is_refused(write, folder, other):
    write([row()], other)
    write([row()], "test-00000-of-00001.parquet")
    with pytest.raises(InputError, match=r"holds several tables \(.*test.*give one of them: .*/"):
        local_task(folder)


def test_a_path_that_is_not_there_is_refused(folder):
    with pytest.raises(InputError, match="there is no file or folder"):
        local_task(folder / "gone.json")


def test_parquet_without_pyarrow_says_what_to_install(write, monkeypatch):
    path = write([row()], "data.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"pip install 'foveate\[eval\]'"):
        local_task(path)


# Columns, shapes, metrics and prompts that do not fit.


@pytest.mark.parametrize(
    ("given", "options", "says"),
    [
        (
            {"picture": "red.png", "question": "?", "answer": "a"},
            {},
            r"columns picture, question, answer;.*needs image",
        ),
        ({"image": "red.png", "answer": "a"}, {}, "needs question"),
        (
            {"image": "red.png", "question": "?"},
            {},
            "no known shape with metric exact needs answer",
        ),
        (
            {"image": "red.png"},
            {"shape": "docvqa"},
            r"shape docvqa.*needs question \(question\), answer",
        ),
        (
            {"image": "red.png", "question": "?", "answer": "a"},
            {"shape": "textcaps"},
            "needs answer",
        ),
        ({"image": "red.png", "instruction": "?"}, {"shape": "screenspot"}, r"needs box \(bbox\)"),
        (
            {"image": "red.png", "question": "?", "answer": "a"},
            {"metric": "milebench_options"},
            "needs options",
        ),
        (row(), {"shape": "docvq"}, "unknown shape 'docvq'; choose from docvqa"),
        (row(), {"metric": "bleu"}, "unknown metric 'bleu'"),
        (row(), {"prompt": "Say it"}, "has no place for the question"),
        (row(), {"max_new_tokens": 0}, "max_new_tokens=0; give at least 1"),
    ],
)
def test_what_cannot_be_told_is_refused(write, given, options, says):
    with pytest.raises(InputError, match=says):
        local_task(write([given]), **options)


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.parquet"])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_refuses_columns_of_another_kind(write, shape, name):
    with pytest.raises(InputError):
        local_task(write([{"a": 1, "b": 2}], name), shape=shape)


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ([row()], "no file of MileBench; it needs meta_data"),
        (
            mile(task_instance={"context": "?"}),
            r"row 1: no sample of MileBench \(KeyError\('images_path'\)\)",
        ),
        (mile(task_instruction_id=9), "row 1: no sample of MileBench"),
        (mile("essay"), "question_type 'essay'"),
    ],
)
def test_a_broken_file_of_milebench_is_refused(write, document, says):
    with pytest.raises(InputError, match=says):
        local_task(write(document), shape="milebench")


# Rows that cannot be asked or judged.


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"image": "gone.png"}, "there is no image gone.png; paths are looked for in"),
        ({"image": "https://example.test/a.png"}, "download it and give its path"),
        ({"image": "data:image/png,xx"}, "address cannot be decoded.*base64"),
        ({"image": "data:image/png;base64,%%"}, "address cannot be decoded"),
        ({"image": "data:image/png;base64,aGVsbG8="}, "an image of 5 bytes is not an image"),
        ({"image": 5}, "its image is int; give a path, bytes"),
        ({"image": {"path": None}}, "its image is NoneType"),
        ({"image": []}, "it has no image"),
        ({"image": None}, "column image has no value"),
        ({"question": float("nan")}, "column question has no value"),
        ({"answers": float("nan")}, "column answers has no value"),
        ({"answers": ["1842", float("nan")]}, "column answers has no value"),
        ({"image": ["red.png", "gone.png"]}, "no image gone.png"),
        (
            {"question": ""},
            r"column question has no value \(columns are image, question, answers\)",
        ),
        ({"question": ["?"]}, r"column question holds \['\?'\]; give a text"),
        ({"question": "<image> <image>"}, "2 places for images, and there are 1"),
        ({"answers": []}, "it has no answer; correct the row"),
        ({"answers": ["a", " "]}, "one of its answers is empty"),
        ({"answers": None}, "test splits often have none"),
        ({"answers": [{"text": "a"}]}, r"column answers holds \{'text': 'a'\}"),
    ],
)
def test_a_bad_row_is_refused_by_its_number(write, changed, says):
    told = refused(local_task(write([row(), row(**changed), row()])))
    assert told.startswith("data.json, row 2: ")
    assert re.search(says, told), told


@pytest.mark.parametrize(
    ("name", "broken", "says"),
    [
        ("text.png", b"no picture", "is not an image that Pillow can read"),
        ("cut.png", png(size=(200, 200))[:150], "is damaged or cut off"),
    ],
)
@pytest.mark.parametrize("is_inside", [False, True], ids=["file", "bytes"])
def test_an_image_that_does_not_open_is_refused(write, folder, name, broken, says, is_inside):
    if is_inside:
        path = write([row(image=png()), row(image=broken)], "data.parquet")
    else:
        (folder / name).write_bytes(broken)
        path = write([row(), row(image=name)])
    told = refused(local_task(path))
    assert "row 2: " in told and says in told


def test_ten_answers_are_asked_for_where_ten_are_compared(write):
    told = refused(local_task(write([row()]), shape="textvqa"))
    assert "row 1: it has 1 answers" in told


def test_a_bad_row_that_is_not_chosen_does_no_harm(write):
    task = local_task(write([row(), row(image="gone.png")]))
    assert len(task.source.samples(1, 0)) == 1

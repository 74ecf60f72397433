"""`foveate heads`: tables of the embedded model, of others, and mishaps."""

import json
import string

import pytest
import torch
from PIL import Image
from transformers import BatchFeature

from families import BY_NAME, IMAGE
from families.qwen import GRIDS
from foveate.calibration.pages import generated
from foveate.calibration.tables import load_table
from foveate.cli import models
from foveate.tiny.documents import document


@pytest.fixture
def folder(tmp_path):
    """Write two annotated pages, boxes in both spellings, the second page with its own prompt."""
    place = tmp_path / "data"
    place.mkdir()
    entries = []
    for number in range(2):
        page = generated(number, seed=11)
        page.image.save(place / f"{number}.png")
        chunks = [{"text": c.text, "box": list(c.box)} for c in page.chunks]
        for chunk in chunks[::2]:
            chunk["box"] = [chunk["box"][:2], chunk["box"][2:]]
        entries.append({"image": f"{number}.png", "chunks": chunks, "prompt": page.prompts[0]})
    (place / "pages.json").write_text(json.dumps(entries))
    return place


def test_the_embedded_model_has_heads_that_look(run, tmp_path):
    out, plot = tmp_path / "heads.json", tmp_path / "heads.png"
    done = run("heads", "--pages", 4, "--out", out, "--plot", plot, "--json")
    assert done.code == 0
    found = json.loads(done.out)
    table = load_table(out, "heads")
    assert (table.model, table.layers, table.query_heads, table.kv_heads) == ("embedded", 6, 4, 2)
    assert [list(row) for row in table.values] == found["scores"]
    assert sum(table.per_layer) == pytest.approx(1.0)
    assert 20 < found["tokens_used"] < found["tokens"]
    assert max(map(max, found["hit_rate"])) > 0.5
    assert (found["pages"], found["seed"], found["prompt"], found["pieces"]) == (
        4,
        0,
        None,
        "decoded",
    )
    assert set(found["versions"]) == {"python", "foveate", "torch", "transformers"}
    stored = json.loads(out.read_text())
    assert found == stored | {"out": str(out), "plot": str(plot)}
    with Image.open(plot) as picture:
        assert picture.width > 200 and len(set(picture.resize((64, 64)).convert("L").tobytes())) > 8


def test_a_table_for_people(run, tmp_path):
    out = tmp_path / "heads.json"
    done = run("heads", "--pages", 1, "--out", out)
    assert done.code == 0
    for words in ("Visual heads of embedded", "share of score", "tokens on 1 pages", str(out)):
        assert words in done.out


@pytest.mark.parametrize("kind", ["json", "jsonl"])
def test_annotated_pages(run, tmp_path, folder, kind):
    entries = json.loads((folder / "pages.json").read_text())
    if kind == "jsonl":
        (folder / "pages.json").unlink()
        lines = "\r\n".join(map(json.dumps, entries)) + "\r\n\r\n"
        (folder / "pages.jsonl").write_bytes(lines.encode("utf-8-sig"))  # as Windows writes it
    out = tmp_path / "heads.json"
    done = run("heads", "--data", folder, "--out", out, "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert (found["data"], found["seed"], found["pages"]) == ("data", None, 2)
    assert found["tokens_used"] > 0
    one = json.loads(run("heads", "--data", folder, "--pages", 1, "--out", out, "--json").out)
    assert one["pages"] == 1
    assert one["tokens_used"] < found["tokens_used"]


class Reader:
    """A processor of tiny Qwen2-VL: a picture becomes 4 x 5 tokens, a token one letter."""

    def __init__(self, family):
        self.family, self.image_processor, self.tokenizer = family, object(), self

    def apply_chat_template(self, chat, **options):
        (content,) = (message["content"] for message in chat)
        seed = len(content[1]["text"]) + int(
            sum(content[0]["image"].resize((1, 1)).getpixel((0, 0)))
        )
        return BatchFeature(self.family.inputs(1, seed))

    def decode(self, ids):
        return string.ascii_lowercase[ids[0] % 20]

    def convert_ids_to_tokens(self, ids):
        return ["Ġ" + self.decode([token]) for token in ids]


@pytest.fixture
def qwen(monkeypatch, tmp_path):
    """Let `--model tiny/qwen` be a tiny Qwen2-VL, and write pages for it."""
    family = BY_NAME["qwen2-vl"]
    loaded = models.Loaded("tiny/qwen", family.build(), Reader(family))
    monkeypatch.setattr(models, "load", lambda *words: loaded)
    place = tmp_path / "made-up"
    place.mkdir()
    entries = []
    for number in range(10):
        Image.new("RGB", (50, 40), (20 * number, 9, 200 - number)).save(place / f"{number}.png")
        words = [(string.ascii_lowercase[i : i + 5], i) for i in (0, 5, 10, 15)]
        chunks = [{"text": w, "box": [2 * i, i, 2 * i + 19, i + 19]} for w, i in words]
        entries.append({"image": f"{number}.png", "chunks": chunks})
    (place / "pages.json").write_text(json.dumps(entries))
    return place


def test_a_second_family(run, tmp_path, qwen):
    out = tmp_path / "heads.json"
    words = ("heads", "--model", "tiny/qwen", "--data", qwen, "--max-new-tokens", 6, "--json")
    done = run(*words, "--out", out)
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["prompt"] == "Provide all the OCR results of this image."
    assert found["model"] == "tiny/qwen" and found["tokens_used"] > 20
    table = load_table(out, "heads")
    table.check("tiny/qwen", 3, 6, 2)
    assert GRIDS[0] == (1, 8, 10)  # patches, of which 2 x 2 make the 4 x 5 tokens
    stated = json.loads(run(*words, "--out", out, "--grid", "4x5").out)
    assert stated["scores"] == found["scores"] and stated["grid"] == "4x5"
    other = json.loads(run(*words, "--out", out, "--grid", "5x4").out)
    assert other["scores"] != found["scores"]
    raw = run(*words, "--out", out, "--pieces", "raw")
    assert (raw.code, raw.out) == (2, "")
    assert "0 belong to one place" in raw.err


def test_generated_pages_for_other_models_are_larger_and_asked_the_paper_s_way(
    run, tmp_path, qwen, monkeypatch
):
    seen = []
    template = Reader.apply_chat_template
    monkeypatch.setattr(
        Reader,
        "apply_chat_template",
        lambda self, chat, **options: seen.append(chat) or template(self, chat, **options),
    )
    monkeypatch.setattr(Reader, "decode", lambda self, ids: string.ascii_uppercase[ids[0] % 26])
    out = tmp_path / "heads.json"
    done = run("heads", "--model", "tiny/qwen", "--pages", 9, "--max-new-tokens", 5, "--out", out)
    assert done.code == 0, done.err
    contents = [chat[0]["content"] for chat in seen]
    assert {c[1]["text"] for c in contents} == {"Provide all the OCR results of this image."}
    assert {c[0]["image"].size for c in contents} == {(768, 768)}


def test_unknown_geometry_asks_for_the_grid(run, tmp_path, qwen, monkeypatch):
    inputs = BY_NAME["qwen2-vl"].inputs(1)
    grid = inputs.pop("image_grid_thw")
    monkeypatch.setattr(Reader, "apply_chat_template", lambda *a, **k: BatchFeature(inputs))
    out = tmp_path / "heads.json"
    done = run("heads", "--model", "tiny/qwen", "--data", qwen, "--out", out)
    assert (done.code, done.out) == (2, "")
    assert "no image_grid_thw came" in done.err and "--grid" in done.err
    assert not out.exists()
    assert len(grid) == 1 and IMAGE in inputs["input_ids"]


ENTRY = {"image": "0.png", "chunks": [{"text": "a", "box": [0, 0, 5, 5]}]}
MISHAPS = [
    ("none", None, "is no folder"),
    ("data", {}, "found: none"),
    ("data", {"a.json": [ENTRY], "b.json": [ENTRY]}, "a.json, b.json"),
    ("data", {"a.json": "{"}, "cannot be read as JSON"),
    ("data", {"a.json": []}, "has no pages"),
    ("data", {"a.json": {"0.png": []}}, "has no pages"),
    ("data", {"a.json": [{"image": "0.png"}]}, "page 0 of the annotations"),
    ("data", {"a.json": [ENTRY | {"chunks": ["a"]}]}, "page 0 of the annotations"),
    ("data", {"a.json": [ENTRY | {"prompt": 3}]}, "page 0 of the annotations"),
    ("data", {"a.json": [ENTRY | {"image": "9.png"}]}, "9.png"),
    ("data", {"a.json": [ENTRY | {"chunks": [{"text": "a"}]}]}, "the box of 'a' on page 0 is None"),
    ("data", {"a.json": [ENTRY | {"chunks": [{"text": "a", "box": [0, 0, 5]}]}]}, "two corner"),
    (
        "data",
        {"a.json": [ENTRY | {"chunks": [{"text": "a", "box": [0, 0, 5, "x"]}]}]},
        "two corner",
    ),
    (
        "data",
        {"a.json": [ENTRY | {"chunks": [{"text": "a", "box": [0, 0, 5, float("nan")]}]}]},
        "two",
    ),
    (
        "data",
        {"a.json": [ENTRY | {"chunks": [{"text": "a", "box": [200, 0, 210, 5]}]}]},
        "112 x 80",
    ),
    ("data", {"a.json": [ENTRY]}, "the embedded model cannot read"),
]


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize(("place", "files", "words"), MISHAPS)
def test_annotations_that_cannot_be_used(run, tmp_path, place, files, words):
    if files is not None:
        (tmp_path / place).mkdir()
        document(5, grid=(5, 7)).pages[0].save(tmp_path / place / "0.png")
        for name, value in files.items():
            text = value if isinstance(value, str) else json.dumps(value)
            (tmp_path / place / name).write_text(text)
    done = run("heads", "--data", tmp_path / place, "--out", tmp_path / "heads.json")
    assert (done.code, done.out) == (2, "")
    assert words in done.err
    assert not (tmp_path / "heads.json").exists()


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--pieces", "half"), "give one of 'decoded', 'raw'"),
        (("--grid", "huge"), "is not a grid"),
        (("--out", "none/heads.json"), "there is no folder none"),
        (("--out", "."), "it is a folder"),
        (("--plot", "none/heads.png"), "there is no folder none"),
    ],
)
def test_options_that_cannot_be_used(run, tmp_path, monkeypatch, options, words):
    monkeypatch.chdir(tmp_path)
    done = run("heads", "--pages", 1, *options)
    assert (done.code, done.out) == (2, "")
    assert words in done.err
    assert list(tmp_path.iterdir()) == []


def test_a_picture_of_no_known_format(run, tmp_path):
    out = tmp_path / "heads.json"
    done = run("heads", "--pages", 1, "--out", out, "--plot", tmp_path / "heads.picture")
    assert (done.code, done.out) == (2, "")
    assert "heads.picture cannot be written" in done.err
    assert out.exists()


def test_pages_of_another_folder_are_the_same_twice(run, tmp_path, folder):
    """Calibration and heads read the same annotations."""
    out = tmp_path / "redundancy.json"
    first, again = (
        json.loads(run("calibrate", "redundancy", "--data", folder, "--out", out, "--json").out)
        for _ in range(2)
    )
    assert first == again
    assert first["pages"] == 2 and torch.tensor(first["redundancy"]).shape == (6, 2)

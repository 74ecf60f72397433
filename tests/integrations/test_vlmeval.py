"""Models for VLMEvalKit, against a stand-in with its registry, its base class and its program.

VLMEvalKit itself cannot be installed as a package, and brings some sixty others along.
"""

import base64
import csv
import io
import json
import sys
from functools import partial
from types import ModuleType

import pytest
import vlmeval_example
from PIL import Image

import foveate
from foveate.cli.answers import prepare_chats
from foveate.cli.models import load
from foveate.errors import CacheError, InputError, MissingExtra
from foveate.integrations import vlmeval
from foveate.tiny import documents

METHOD = {"method": "aircache", "keep": "0.25"}
NAME = "Qwen2-VL-like-aircache"

PROGRAM = """
import json, pathlib, sys
from vlmeval.config import supported_VLM

model = supported_VLM[sys.argv[sys.argv.index("--model") + 1]](use_vllm=False)
model.set_dump_image(print)
asked = json.loads(pathlib.Path("asked.json").read_text())
said = [model.generate(message, dataset="MMBench-Video") for message in asked]
pathlib.Path("said.json").write_text(json.dumps(said))
"""


class BaseModel:
    """What VLMEvalKit's models inherit, as far as inference goes."""

    INTERLEAVE = False
    allowed_types = ("text", "image")

    def set_dump_image(self, function):
        self.dump_image = function

    def generate(self, message, dataset=None):
        assert all(part["type"] in self.allowed_types for part in message)
        return self.generate_inner(message, dataset)


class Stock(BaseModel):
    """A model as VLMEvalKit brings it: it words the question in its own way."""

    def __init__(self, model_path, suffix="?", limit=8, use_vllm=False):
        self.loaded = load()
        self.model, self.suffix, self.limit = self.loaded.model, suffix, limit

    def generate_inner(self, message, dataset=None):
        content = [vlmeval._part(**part) for part in message]
        content[-1]["text"] = content[-1]["text"].removesuffix("?") + self.suffix
        inputs = prepare_chats(self.loaded, [[{"role": "user", "content": content}]])
        ids = self.model.generate(**inputs, max_new_tokens=self.limit, do_sample=False)
        return self.loaded.processor.decode(
            ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True
        )


class Elsewhere(Stock):
    def generate_inner(self, message, dataset=None):
        return "from a cache of answers"


class Remote(BaseModel):
    def __init__(self):
        self.model = "gpt"


@pytest.fixture
def registry(monkeypatch):
    known = {
        "Fast-7B": partial(Stock, model_path="fast/7b", use_vllm=True),
        "Stock-7B": partial(Stock, model_path="stock/7b"),
        "Elsewhere": partial(Elsewhere, model_path="x"),
        "Remote": partial(Remote),
    }
    modules = {"vlmeval": {}, "vlmeval.config": {"supported_VLM": known}}
    modules |= {"vlmeval.vlm": {}, "vlmeval.vlm.base": {"BaseModel": BaseModel}}
    for name, content in modules.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    return known


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """Messages as VLMEvalKit builds them for frames of a video: text, images, question."""
    folder = tmp_path_factory.mktemp("pages")
    messages = []
    for seed in (41, 42, 43):
        drawn = documents.document(seed, grid=(8, 8), pages=2, values=(4, 6))
        paths = [str(folder / f"{seed}-{number}.png") for number in range(2)]
        for page, path in zip(drawn.pages, paths, strict=True):
            page.save(path)
        images = [{"type": "image", "value": path} for path in paths]
        messages.append([*images, {"type": "text", "value": drawn.questions[0].text}])
    return messages


def by_hand(asked, keep):
    loaded = load()
    said = []
    for message in asked:
        content = [vlmeval._part(**part) for part in message]
        inputs = prepare_chats(loaded, [[{"role": "user", "content": content}]])
        with foveate.compress(loaded.model, "aircache", keep=keep):
            ids = loaded.model.generate(**inputs, max_new_tokens=8, do_sample=False)
        new = ids[0, inputs["input_ids"].shape[1] :]
        said.append(loaded.processor.decode(new, skip_special_tokens=True))
    return said


@pytest.mark.parametrize("source", [{"base": "Stock-7B"}, {"max_new_tokens": "8"}])
def test_answers_are_those_by_hand(registry, asked, source):
    compression = vlmeval.register(NAME, **source, **METHOD)
    model = registry[NAME](use_vllm=False)
    assert [model.generate(message, dataset="DocVQA_VAL") for message in asked] == by_hand(
        asked, 0.25
    )
    assert compression.tally.calls == 3
    assert compression.to_dict()["share_visual"] == 0.25
    assert by_hand(asked, 0.01) != by_hand(asked, 1.0)  # or nothing would tell them apart


def rows(path):
    """What is in a table, but for how its pictures are packed: that depends on the libraries."""
    csv.field_size_limit(10**7)
    with path.open(newline="") as file:
        read = list(csv.DictReader(file, delimiter="\t"))
    for row in read:
        row["image"] = Image.open(io.BytesIO(base64.b64decode(row["image"]))).convert("RGB")
    return read


def test_the_example_is_what_the_script_writes(tmp_path):
    assert vlmeval_example.main(tmp_path) == 0
    name = f"{vlmeval_example.NAME}.tsv"
    made, there = rows(tmp_path / name), rows(vlmeval_example.FOLDER / name)
    assert [*there[0]] == ["index", "image", "question", "answer"] and len(there) == 8
    for one, other in zip(made, there, strict=True):
        assert one.pop("image").tobytes() == other.pop("image").tobytes()
        assert one == other


def test_the_example_is_answered_rightly_with_the_full_cache(registry, tmp_path):
    vlmeval.register(NAME, method="full", max_new_tokens="32")
    model = registry[NAME]()
    for row in rows(vlmeval_example.FOLDER / f"{vlmeval_example.NAME}.tsv"):
        page = tmp_path / f"{row['index']}.png"
        row["image"].save(page)
        asked = {"type": "image", "value": str(page)}, {"type": "text", "value": row["question"]}
        assert model.generate([*asked], dataset=vlmeval_example.NAME) == row["answer"]


def test_arguments_of_a_stock_model_are_its_own(registry, asked):
    vlmeval.register(NAME, base="Stock-7B", limit="1", suffix="*", **METHOD)
    model = registry[NAME]()
    assert (model.limit, model.suffix) == (1, "*")
    assert isinstance(model, Stock)
    assert type(model).__name__ == "CompressedStock"
    assert registry["Stock-7B"].keywords == {"model_path": "stock/7b"}


def test_program_of_vlmevalkit_runs_with_one_more_model(
    registry, asked, tmp_path, monkeypatch, capsys
):
    (tmp_path / "run.py").write_text(PROGRAM)
    (tmp_path / "asked.json").write_text(json.dumps(asked))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    words = ["base=Stock-7B,method=aircache,keep=0.25", "run.py", "--data", "X", "--model", NAME]
    monkeypatch.setattr(sys, "argv", ["vlmeval", *words])
    vlmeval.main()
    assert json.loads((tmp_path / "said.json").read_text()) == by_hand(asked, 0.25)
    assert f"foveate: {NAME} kept 25.0% of 384 visual tokens" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"base": "Stock-7", **METHOD}, "did you mean 'Stock-7B'"),
        ({"base": "Stock-7B", "limitt": "1", **METHOD}, "did you mean 'limit'"),
        ({"pretraned": "x", **METHOD}, "did you mean 'pretrained'"),
        ({"base": "Stock-7B"}, "no method came"),
    ],
)
def test_arguments_that_nothing_knows(registry, arguments, message):
    with pytest.raises(InputError, match=message):
        vlmeval.register(NAME, **arguments)
    assert NAME not in registry


def test_what_cannot_be_compressed_is_refused(registry, asked):
    vlmeval.register("a", base="Remote", **METHOD)
    with pytest.raises(InputError, match="Remote has no model of transformers"):
        registry["a"]()
    vlmeval.register("b", base="Elsewhere", **METHOD)
    with pytest.raises(CacheError, match="Elsewhere answered without calling generate"):
        registry["b"]().generate(asked[0])
    with pytest.raises(InputError, match="leave --use-vllm out"):
        registry["b"](use_vllm=True)
    vlmeval.register("c", base="Fast-7B", **METHOD)
    with pytest.raises(InputError, match="add use_vllm=false"):
        registry["c"]()
    vlmeval.register("d", base="Fast-7B", use_vllm="false", **METHOD)
    assert registry["d"]().limit == 8
    with pytest.raises(InputError, match="has a model Stock-7B already"):
        vlmeval.register("Stock-7B", base="Stock-7B", **METHOD)


@pytest.mark.parametrize(
    "words, message",
    [
        (["method=aircache"], "the program of VLMEvalKit is missing"),
        (["method=aircache", __file__, "--data", "X"], "--model came 0 times"),
        (["aircache", __file__, "--model", "X"], "not of the form name=value"),
    ],
)
def test_bad_words_are_one_message(registry, monkeypatch, capsys, words, message):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", ["vlmeval", *words])
    with pytest.raises(SystemExit) as stop:
        vlmeval.main()
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_without_vlmevalkit():
    with pytest.raises(MissingExtra, match="install VLMEvalKit from its repository"):
        vlmeval.register(NAME, **METHOD)

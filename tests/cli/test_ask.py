"""`foveate ask`: one JSON object, an answer alone on stdout, and plain words for every mistake."""

import json

import pytest
import torch

import foveate
from foveate.cli import models, torchvision

pytestmark = pytest.mark.usefixtures("untrained")


def test_json_is_one_object_and_nothing_else(run, page):
    done = run("ask", page, "AB?", "--keep", "0.5", "--max-new-tokens", "5", "--json")
    found = json.loads(done.out)
    assert done.code == 0
    assert (found["model"], found["question"], found["images"]) == ("embedded", "AB?", [page])
    assert found["visual_total"] == 35
    assert found["visual_kept"] == pytest.approx(35 / 2, abs=1)
    assert found["bytes_stored"] < found["bytes_full"]
    assert len(found["layers"]) == 3
    assert "full" not in found


def test_answer_stands_alone_on_stdout(run, page):
    done = run("ask", page, "AB?", "--max-new-tokens", "3")
    assert done.code == 0
    assert len(done.out.splitlines()) == 1
    assert "visual tokens" in done.err


def test_everything_kept_answers_like_the_full_cache(run, page):
    done = run("ask", page, "AB?", "--keep", "1.0", "--compare", "--json", "--max-new-tokens", "7")
    found = json.loads(done.out)
    assert found["text"] == found["full"]["text"]
    assert found["bytes_stored"] == found["full"]["bytes_stored"]


def test_comparison_is_a_table(run, page):
    done = run("ask", page, "AB?", "--keep", "3", "--compare", "--max-new-tokens", "2")
    assert "full cache" in done.out
    assert "aircache 3" in done.out


def test_options_reach_the_method(run, page):
    words = ("--option", "alpha=0.5", "--option", "window=all_text", "--option", "merge=0.2")
    done = run("ask", page, "AB?", *words, "--max-new-tokens", "1", "--json")
    built = foveate.method("aircache", alpha=0.5, window="all_text", merge=0.2)
    assert json.loads(done.out)["method"] == str(built)


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["--storage", "ragged"], "ragged"),
        (["--quantized", "quanto"], "dense quanto"),
        ([], "dense"),
    ],
)
def test_the_form_of_storage_can_be_chosen(run, page, words, name):
    done = run("ask", page, "AB?", *words, "--max-new-tokens", "2", "--json")
    assert {layer["storage"] for layer in json.loads(done.out)["layers"]} == {name}


def test_several_images_go_into_one_prompt(run, page):
    done = run("ask", page, page, "AB?", "--max-new-tokens", "1", "--json")
    assert json.loads(done.out)["visual_total"] == 70


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["AB?"], "at least one image"),
        (["PAGE", " "], "question is empty"),
        (["nowhere.png", "AB?"], "no file nowhere.png"),
        (["PAGE", "AB?", "--keep", "10%"], "such as 0.1"),
        (["PAGE", "AB?", "--keep", "0"], "keeps nothing"),
        (["PAGE", "AB?", "--keep", "1.5"], "more than everything"),
        (["PAGE", "AB?", "--keep", "-0.5"], "not a share"),
        (["PAGE", "AB?", "--keep", "nan"], "not a share"),
        (["PAGE", "AB?", "--method", "aircach"], "'aircache'"),
        (["PAGE", "AB?", "--option", "alfa=0.5"], "'alpha'"),
        (["PAGE", "AB?", "--option", "alpha"], "name=value"),
        (["PAGE", "AB?", "--option", "alpha=1.5"], "alpha=1.5"),
        (["PAGE", "AB?", "--dtype", "float8"], "bfloat16"),
        (["PAGE", "AB?", "--device", "warp:9"], "--device 'warp:9'"),
        (["PAGE", "AB?", "--attn", "telepathy"], "--attn 'telepathy'"),
        (["PAGE", "AB?", "--model", "./no/such/folder"], "no folder"),
        (["PAGE", "AB?", "--max-pixels", "5"], "--max-pixels"),
        (["PAGE", "AB?", "--storage", "attic"], "storage 'attic' is not known"),
        (["PAGE", "AB?", "--quantized", "int3"], "quantized='int3' is not known"),
    ],
)
def test_bad_input_is_explained(run, page, words, says):
    done = run("ask", *[page if word == "PAGE" else word for word in words], "--json")
    assert (done.code, done.out) == (2, "")
    assert says in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("attn", ["sdpa", "eager"])
def test_attention_and_number_type_can_be_chosen(run, page, attn):
    words = ("--attn", attn, "--dtype", "bfloat16", "--max-new-tokens", "2")
    assert run("ask", page, "AB?", *words).code == 0


def test_other_failures_have_exit_code_1(run, page, monkeypatch):
    def refuse(*args):
        raise foveate.UnsupportedModel("this one cannot be compressed; take another")

    monkeypatch.setattr(models, "load", refuse)
    done = run("ask", page, "AB?")
    assert (done.code, done.out) == (1, "")
    assert "take another" in done.err


def test_missing_torchvision_is_named_with_the_cure(monkeypatch):
    monkeypatch.setattr(torchvision, "state", lambda: torchvision.State("missing", "not installed"))
    monkeypatch.setattr(torch, "__version__", "2.13.0+cpu")
    broken = AttributeError("VIDEO_PROCESSOR_MAPPING has no attribute '_extra_content'")
    error = models._load_error("some/model", "processor", broken)
    assert isinstance(error, foveate.MissingExtra)
    assert "CPU build of torchvision" in str(error)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (ModuleNotFoundError("Could not import module 'AutoProcessor'"), "foveate doctor"),
        (torch.OutOfMemoryError("tried to allocate much"), "out of memory"),
        (KeyboardInterrupt(), "stopped"),
    ],
)
def test_troubles_of_the_machine_are_no_tracebacks(run, page, monkeypatch, error, says):
    def fail(*args):
        raise error

    monkeypatch.setattr(models, "load", fail)
    done = run("ask", page, "AB?", "--json")
    assert done.code in (1, 130)
    assert done.out == ""
    assert says in done.err

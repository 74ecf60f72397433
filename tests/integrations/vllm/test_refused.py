"""A file or a request that cannot be used fails alone, in a running vLLM."""

import os
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from alone import EVEN, answers
from foveate.integrations.vllm import export, prefill

from .asking import ask, parameters, said, wanted


def truncated(handoff):
    handoff.path.write_bytes(handoff.path.read_bytes()[:-100])


def emptied(handoff):
    handoff.path.write_bytes(b"")


def scrambled(handoff):
    handoff.path.write_bytes(os.urandom(4096))


def removed(handoff):
    handoff.path.unlink()


def rewritten(handoff, change, **header):
    tensors = change(load_file(handoff.path))
    save_file(tensors, handoff.path, replace(handoff, **header).to_metadata())


def poisoned(handoff):
    rewritten(handoff, lambda stored: {**stored, "values.1": stored["values.1"] * torch.nan})


def of_another_width(handoff):
    rewritten(handoff, lambda stored: {k: v[..., :16].contiguous() for k, v in stored.items()})


def of_more_layers(handoff):
    rewritten(handoff, lambda stored: stored, layers=4)


def without_a_layer(handoff):
    rewritten(handoff, lambda stored: {k: v for k, v in stored.items() if k != "keys.2"})


def of_another_format(handoff):
    save_file(load_file(handoff.path), handoff.path, {"format": "else"})


def without_a_header(handoff):
    save_file(load_file(handoff.path), handoff.path)


def linked_elsewhere(handoff):
    elsewhere = handoff.path.parent.parent / handoff.path.name
    handoff.path.rename(elsewhere)
    handoff.path.symlink_to(elsewhere)


FILES = (
    truncated, emptied, scrambled, removed, poisoned, of_another_width, of_more_layers,
    without_a_layer, of_another_format, without_a_header, linked_elsewhere,
)  # fmt: skip


def named(handoff, **changes):
    asked = {**handoff.parameters()["foveate"], **changes}
    return {"kv_transfer_params": {"foveate": asked}}


# What a client may send in place of `Handoff.parameters()`.
REQUESTS = {
    "a path": lambda x: named(x, file=f"../{x.path.parent.name}/{x.path.name}"),
    "an absolute path": lambda x: named(x, file=str(x.path)),
    "a folder": lambda x: named(x, file="."),
    "a number": lambda x: named(x, file=7),
    "nothing": lambda x: named(x, file=""),
    "fewer tokens": lambda x: named(x, length=x.length - 1),
    "more tokens": lambda x: named(x, length=x.length + 1),
    "a negative length": lambda x: named(x, length=-1),
    "a huge length": lambda x: named(x, length=1 << 40),
    "a word": lambda x: {"kv_transfer_params": {"foveate": "x" * 1000}},
    "a list": lambda x: {"kv_transfer_params": {"foveate": []}},
}


@pytest.fixture
def good(place):
    """A file that can be used, and what follows it."""
    here = place("llava-1.5")
    inputs, method = here.family.inputs(1), EVEN["snapkv"]
    read = prefill(here.model, inputs, method)
    tokens, logits = answers(here.model, inputs, method)
    return read, wanted(tokens[0], logits[0])


def goes_on_beside(llm, good, here, prompt, settings):
    """Whether one request fails, those before and after it are answered, and the next as well."""
    read, (tokens, _) = good
    (fine,) = export(read, here.handed)
    prompts = [fine.prompt(), prompt, fine.prompt()]
    outputs = ask(llm, prompts, [parameters(fine), settings, parameters(fine)])
    assert outputs[1].outputs[0].finish_reason == "error"
    (later,) = ask(llm, [fine.prompt()], [parameters(fine)])
    for output in (outputs[0], outputs[2], later):
        assert said(fine, output)[0] == tokens


@pytest.mark.parametrize("harm", FILES, ids=lambda harm: harm.__name__)
def test_a_bad_file_fails_one_request(place, engine, good, harm):
    here, llm = place("llava-1.5"), engine("llava-1.5")
    (bad,) = export(good[0], here.handed)
    harm(bad)
    goes_on_beside(llm, good, here, bad.prompt(), parameters(bad))


@pytest.mark.parametrize("request_of", REQUESTS)
def test_a_bad_request_fails_alone(place, engine, good, request_of):
    here, llm = place("llava-1.5"), engine("llava-1.5")
    (handoff,) = export(good[0], here.handed)
    settings = parameters(handoff, extra_args=REQUESTS[request_of](handoff))
    goes_on_beside(llm, good, here, handoff.prompt(), settings)


def test_placeholders_have_no_logprobs(place, engine, good):
    here, llm = place("llava-1.5"), engine("llava-1.5")
    (handoff,) = export(good[0], here.handed)
    settings = parameters(handoff, prompt_logprobs=1)
    goes_on_beside(llm, good, here, handoff.prompt(), settings)

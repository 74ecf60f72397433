"""vLLM's server: the `openai` client streams answers to prompts that were handed over."""

import json
import os
import re
import socket
import subprocess
import sys
import time

import openai
import pytest

from alone import EVEN, STEPS, answers
from foveate.integrations.vllm import export, prefill, transfer_config

PATIENCE = 280  # seconds; a start takes some ten times less on a machine without other work


@pytest.fixture(scope="module")
def client(place, tmp_path_factory):
    """The client of a server that runs the language model of a tiny Qwen2.5-VL."""
    here = place("qwen2.5-vl")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", str(here.folder), "--served-model-name", "tiny"),
        *("--host", "127.0.0.1", "--port", str(port)),
        *("--dtype", "float32", "--enforce-eager", "--max-model-len", "512"),
        *("--no-enable-prefix-caching", "--generation-config", "vllm"),
        *("--kv-transfer-config", json.dumps(transfer_config(here.handed))),
    ]
    log = tmp_path_factory.mktemp("server") / "log"
    with open(log, "w") as file:
        server = subprocess.Popen(words, stdout=file, stderr=file, env=dict(os.environ))
    with openai.OpenAI(
        base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0
    ) as made:
        try:
            wait(made, server, log)
            made.log = log
            yield made
        finally:
            server.terminate()
            server.wait(60)


def wait(client, server, log):
    """Wait until the server answers, or say what it said."""
    end = time.monotonic() + PATIENCE
    while server.poll() is None and time.monotonic() < end:
        try:
            client.models.list()
            return
        except openai.APIConnectionError:
            time.sleep(0.5)
    pytest.fail(log.read_text()[-3000:])


@pytest.fixture(scope="module")
def cases(place):
    """Files with the tokens that transformers goes on with."""
    here = place("qwen2.5-vl")
    made = []
    for seed, method in enumerate(EVEN.values()):
        inputs = here.family.inputs(1, seed=seed)
        (handoff,) = export(prefill(here.model, inputs, method), here.handed)
        made.append((handoff, answers(here.model, inputs, method)[0][0].tolist()))
    return made


def asked(handoff):
    """The arguments of `client.completions.create`."""
    body = handoff.request()
    return {
        "model": "tiny",
        "prompt": body.pop("prompt"),
        "max_tokens": STEPS,
        "temperature": 0,
        "extra_body": {**body, "ignore_eos": True, "return_token_ids": True},
    }


def test_answers_are_streamed(client, cases):
    for handoff, tokens in cases:
        pieces = list(client.completions.create(**asked(handoff), stream=True))
        assert len(pieces) > 2
        ids = [token for piece in pieces for token in piece.choices[0].token_ids or ()]
        assert [handoff.first, *ids] == tokens
        text = "".join(piece.choices[0].text for piece in pieces)
        assert re.findall(r"w\d+", text) == [f"w{token}" for token in tokens[1:]]


def test_many_streams_at_once_do_not_mix(client, cases):
    streams = [client.completions.create(**asked(x), stream=True) for x, _ in cases * 2]
    found = [[] for _ in streams]
    for ids, stream in zip(found, streams, strict=True):
        ids += [token for piece in stream for token in piece.choices[0].token_ids or ()]
    for ids, (handoff, tokens) in zip(found, cases * 2, strict=True):
        assert [handoff.first, *ids] == tokens


def test_a_truncated_file_is_an_error_of_its_request(client, cases):
    (good, tokens), (bad, _) = cases[0], cases[1]
    whole = bad.path.read_bytes()
    bad.path.write_bytes(whole[:-100])
    try:
        with pytest.raises(openai.InternalServerError):
            client.completions.create(**asked(bad))
    finally:
        bad.path.write_bytes(whole)
    answer = client.completions.create(**asked(good))
    assert [good.first, *answer.choices[0].token_ids] == tokens
    assert "foveate: request" in client.log.read_text()

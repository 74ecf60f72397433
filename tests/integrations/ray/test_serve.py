"""Ray Serve: two replicas of the server answer OpenAI's client, whole and as a stream."""

import base64
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest
from openai import APIStatusError, AuthenticationError, BadRequestError, OpenAI
from ray import serve

from foveate.errors import InputError
from foveate.integrations.ray import app, deployment

from .conftest import KEEP, METHOD, TOKENS

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own
WORDS = {"method": METHOD, "keep": str(KEEP), "replicas": "2", "device": "cpu", "max_body": "1MiB"}


@pytest.fixture(scope="module")
def address(cluster, tmp_path_factory):
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text("secret\n")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    more = {"api_key_file": str(keys), "server_name": "127.0.0.1"}
    serve.run(app({**WORDS, **more}), name="foveate", route_prefix="/")
    yield f"http://127.0.0.1:{port}/v1"
    serve.shutdown()


@pytest.fixture
def client(address):
    with OpenAI(base_url=address, api_key="secret", max_retries=0, timeout=120) as client:
        yield client


def chat(rows, index, **options):
    data = base64.b64encode(rows.columns["image"][index]).decode()
    content = [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}},
        {"type": "text", "text": rows.columns["question"][index]},
    ]
    messages = [{"role": "user", "content": content}]
    return {"model": "embedded", "messages": messages, "max_tokens": TOKENS, **options}


def test_replicas_answer_as_generate_does(client, rows):
    with ThreadPoolExecutor(8) as many:
        asked = [chat(rows, index) for index in range(8)]
        answers = list(many.map(lambda one: client.chat.completions.create(**one), asked))
    assert [one.choices[0].message.content.strip() for one in answers] == rows.said
    assert all(one.kv["bytes_stored"] < one.kv["bytes_full"] for one in answers)
    (server,) = serve.status().applications["foveate"].deployments.values()
    assert server.replica_states == {"RUNNING": 2}


def test_a_stream_comes_in_pieces_and_ends_with_its_usage(client, rows):
    stream = client.chat.completions.create(
        **chat(rows, 1, stream=True, stream_options={"include_usage": True})
    )
    *pieces, last = stream
    said = "".join(one.choices[0].delta.content or "" for one in pieces)
    assert said.strip() == rows.said[1]
    assert sum(bool(one.choices[0].delta.content) for one in pieces) > 1
    assert last.usage.completion_tokens > 1 and last.choices == []


def test_errors_are_those_of_the_server(address, client, rows):
    with pytest.raises(BadRequestError, match="snapvk"):
        client.chat.completions.create(**chat(rows, 0), extra_body={"kv": {"method": "snapvk"}})
    with OpenAI(base_url=address, api_key="other", max_retries=0) as stranger:
        with pytest.raises(AuthenticationError):
            stranger.models.list()
    with pytest.raises(APIStatusError, match="host name") as misled:
        client.models.list(extra_headers={"host": "evil.example"})
    assert misled.value.status_code == 421
    with pytest.raises(APIStatusError, match="bytes") as large:
        client.chat.completions.create(**chat(rows, 0), user="x" * (2 << 20))
    assert large.value.status_code == 413


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"modle": "x"}, "--modle"),
        ({"modle": "false"}, "--modle"),
        ({"port": 80}, "port is Ray's"),
        ({"ui": "true"}, "ui is for `foveate serve` alone"),
        ({"method": "snapvk"}, "snapkv"),
        ({"keep": "much"}, "'much' is not a number"),
        ({"queue": "0"}, "--queue"),
        ({"kv_bytes": "lots"}, "'lots' is not a size"),
        ({"replicas": "two"}, "replicas='two' is not understood"),
    ],
)
def test_what_is_wrong_is_said_before_a_replica_starts(words, says):
    with pytest.raises(InputError, match=says):
        app(words)


def test_a_deployment_takes_values_and_ray_s_own_options():
    made = deployment(
        method="snapkv", keep=0.1, option=["window=16"], log_prompts=True, allow_host=("a.test",)
    ).options(num_replicas=3)
    assert (made.name, made.num_replicas, made.max_ongoing_requests) == ("foveate", 3, 4096)

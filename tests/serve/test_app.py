"""OpenAI's own client gets from the server what the slow twin answers, in OpenAI's shapes."""

import asyncio
import sys

import httpx
import openai
import pytest
from PIL import Image

import foveate
import foveate.serve
from foveate import tiny
from foveate.serve import Engine, Settings
from foveate.serve.engine.asking import Chance, Done, Piece
from serving import Script, ask_of, hello, messages, page, png, served, twin

METHOD = {"method": "aircache", "options": {"keep": 0.3}}


@pytest.fixture(scope="module")
def url():
    engine = Engine(*tiny.load(), foveate.aircache(keep=0.3), chunk=32)
    with served(engine, Settings(**METHOD)) as url:
        yield url


@pytest.fixture(scope="module")
def client(url):
    with openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as client:
        yield client


@pytest.fixture
def scripted():
    """Serve a script, and return a client of it."""
    stack = []

    def start(events, **settings):
        engine = Script(events)
        context = served(engine, Settings(**settings))
        url = context.__enter__()
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0)
        stack.extend([context, client])
        return engine, client

    yield start
    for context in reversed(stack):
        context.__exit__(None, None, None)


def asked(client, text, *urls, **more):
    return client.chat.completions.create(
        model="embedded", messages=messages(text, *urls), temperature=0, **more
    )


def test_answers_are_the_twin_s_and_right(client):
    address, questions = page(5)
    right = next(one for one in questions if one.text == "T?")
    answer = asked(client, right.text, address)
    assert answer.object == "chat.completion" and answer.id.startswith("chatcmpl-")
    assert answer.choices[0].message.content == right.answer == "671418"
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].logprobs is None
    assert answer.kv["method"] == "aircache" and answer.kv["keep"] == 0.3
    assert 0 < answer.kv["bytes_stored"] < answer.kv["bytes_full"]
    assert 0 < answer.kv["kept_visual"] < answer.kv["total_visual"] == 64
    assert answer.usage.prompt_tokens == 64 + 2 + len(right.text)
    assert answer.usage.completion_tokens == len(right.answer) + 1
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.prompt_tokens_details.image_tokens == 64


def test_a_stream_is_the_same_answer_in_pieces(client):
    address, _ = page(5)
    whole = asked(client, "T?", address)
    usage = {"include_usage": True}
    chunks = list(asked(client, "T?", address, stream=True, stream_options=usage))
    *body, last = chunks
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk.id for chunk in chunks}) == 1
    assert body[0].choices[0].delta.role == "assistant"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in body)
    assert text == whole.choices[0].message.content
    assert [chunk.choices[0].finish_reason for chunk in body if chunk.choices[0].finish_reason] == [
        "stop"
    ]
    assert timeless(body[-1].kv) == timeless(whole.kv)
    assert last.choices == [] and last.usage == whole.usage
    assert all(chunk.usage is None for chunk in body)


def timeless(kv):
    return {name: value for name, value in kv.items() if name != "seconds"}


def test_a_stream_without_usage_has_none(client):
    chunks = list(asked(client, "T?", page(5)[0], stream=True))
    assert all(chunk.choices and "usage" not in chunk.model_extra for chunk in chunks)
    assert chunks[-1].usage is None and chunks[-1].choices[0].finish_reason == "stop"


def test_the_asynchronous_client_gets_them_too(url):
    async def all_at_once():
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="any") as client:
            whole = asked(client, "T?", page(5)[0])
            stream = await asked(client, "T?", page(5)[0], stream=True)
            pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]
            return (await whole).choices[0].message.content, "".join(pieces)

    assert asyncio.run(all_at_once()) == ("671418", "671418")


@pytest.mark.parametrize(
    ("kv", "method"),
    [
        ({"keep": 0.05}, foveate.aircache(keep=0.05)),
        ({"alpha": 0.5}, foveate.aircache(keep=0.3, alpha=0.5)),
        ({"method": "snapkv", "keep": 40}, foveate.snapkv(keep=40)),
        ({"method": "mixkv+adakv", "keep": 0.2}, foveate.method("mixkv+adakv", keep=0.2)),
        ({"method": "full"}, None),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_a_request_names_its_own_method(client, kv, method):
    address, (question, *_) = page(6)
    answer = asked(client, question.text, address, extra_body={"kv": kv})
    assert answer.choices[0].message.content == twin(ask_of(question.text, address), method)
    wanted = {"method": "aircache", "keep": 0.3} if "method" not in kv else {}
    assert {
        **wanted,
        **{k: kv[k] for k in ("method", "keep") if k in kv},
    }.items() <= answer.kv.items()


def test_several_pictures_come_in_their_order(client):
    first, second = page(5)[0], page(7)[0]
    answer = asked(client, "T?", first, second, extra_body={"kv": {"method": "full"}})
    assert answer.choices[0].message.content == twin(ask_of("T?", first, second), None)
    assert answer.usage.prompt_tokens_details.image_tokens == 128


def test_stops_and_lengths_end_an_answer(client):
    address, _ = page(5)
    stopped = asked(client, "T?", address, stop=["14"])
    assert stopped.choices[0].message.content == "67"
    assert stopped.choices[0].finish_reason == "stop"
    short = asked(client, "T?", address, max_completion_tokens=3)
    assert short.choices[0].message.content == "671"
    assert short.choices[0].finish_reason == "length"
    assert asked(client, "T?", address, max_tokens=2).usage.completion_tokens == 2


def test_what_the_model_refuses_is_the_client_s_mistake(client):
    with pytest.raises(openai.BadRequestError, match="write it in capitals") as caught:
        asked(client, "what?", page(5)[0])
    assert caught.value.type == "invalid_request_error"
    with pytest.raises(openai.BadRequestError, match="a turn of role 'system'"):
        client.chat.completions.create(
            model="embedded",
            messages=[{"role": "developer", "content": "BE SHORT"}, *messages("ABC?")],
        )


def test_fields_arrive_at_the_engine(scripted):
    engine, client = scripted(hello)
    client.chat.completions.create(
        model="embedded",
        messages=[
            {"role": "system", "content": "be short"},
            {"role": "user", "content": [{"type": "text", "text": "hi"}], "name": "me"},
            {"role": "assistant", "content": "yes?"},
            *messages("what?", png(Image.new("RGB", (40, 30), "red"))),
        ],
        temperature=0.5,
        top_p=0.9,
        seed=-7,
        stop="END",
        logprobs=True,
        top_logprobs=3,
        max_tokens=17,
        user="somebody",
        metadata={"a": "b"},
        store=False,
        n=1,
        presence_penalty=0,
        response_format={"type": "text"},
        tools=[],
    )
    (ask,) = engine.seen
    assert [message["role"] for message in ask.messages] == ["system", "user", "assistant", "user"]
    assert ask.messages[0]["content"] == [{"type": "text", "text": "be short"}]
    picture, text = ask.messages[3]["content"]
    assert (picture["image"].size, picture["image"].mode) == ((40, 30), "RGB")
    assert picture["image"].getpixel((5, 5)) == (255, 0, 0) and text["text"] == "what?"
    assert (ask.temperature, ask.top_p, ask.seed, ask.stop) == (0.5, 0.9, -7, ("END",))
    assert (ask.logprobs, ask.max_new_tokens, ask.method, ask.full) == (3, 17, None, False)
    client.chat.completions.create(model="embedded", messages=messages("hi"), logprobs=True)
    assert engine.seen[1].logprobs == 0 and engine.seen[1].temperature is None
    assert [one.most for one in engine.seen] == [4096, 4096]  # of the settings, said or not


def test_an_answer_comes_back_as_a_message_of_the_next_turn(scripted):
    engine, client = scripted(hello)
    turns = messages("hi")
    said = client.chat.completions.create(model="embedded", messages=turns).choices[0].message
    empty = {**said.model_dump(), "tool_calls": []}  # as some write it down
    told = {"role": "assistant", "content": [{"type": "text", "text": "HELLO"}]}
    for again in (said, empty):
        client.chat.completions.create(model="embedded", messages=[*turns, again, *turns])
        assert engine.seen[-1].messages[1] == told
    with pytest.raises(openai.BadRequestError, match="tool_calls"):
        client.chat.completions.create(model="embedded", messages=[{**empty, "tool_calls": [{}]}])


def chances(ask, ticket):
    others = (Chance(4, "\ufffd", float("-inf")), Chance(5, "N", float("nan")))
    same = Chance(1, "H", -0.5)
    yield Piece("HÉ", (Chance(1, "H", -0.5, (same, *others)), Chance(2, "É", -1.0)))
    yield Done("length", 1, 2, 0, {})


@pytest.mark.parametrize("stream", [False, True])
def test_logprobs_have_bytes_and_alternatives(scripted, stream):
    _, client = scripted(chances)
    answer = client.chat.completions.create(
        model="embedded", messages=messages("A"), logprobs=True, top_logprobs=2, stream=stream
    )
    chunks = list(answer) if stream else [answer]
    content = next(c.choices[0].logprobs for c in chunks if c.choices[0].logprobs).content
    assert [(one.token, one.logprob, bytes(one.bytes)) for one in content] == [
        ("H", -0.5, b"H"),
        ("É", -1.0, "É".encode()),
    ]
    same, part, none = content[0].top_logprobs
    assert same.token == "H" and part.logprob == -9999.0 and part.bytes is None
    assert none.logprob == -9999.0  # which JSON cannot say of NaN either
    assert content[1].top_logprobs == []


def test_models_are_listed_by_name(client):
    assert [one.id for one in client.models.list()] == ["embedded"]
    assert client.models.retrieve("embedded").object == "model"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("other/model")
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError, match="this server has 'embedded'"):
        client.chat.completions.create(model="gpt", messages=messages("A"))


def test_health_and_metrics_can_be_watched(url, client):
    assert httpx.get(f"{url}/health").json() == {"status": "ok"}
    before = metrics(url)
    asked(client, "T?", page(5)[0])
    after = metrics(url)
    grown = {name: after[name] - before.get(name, 0) for name in after}
    assert grown['foveate_requests_total{path="/v1/chat/completions",status="200"}'] == 1
    assert grown["foveate_first_token_seconds_count"] == 1
    assert grown['foveate_tokens_total{kind="visual"}'] == 64
    assert grown['foveate_tokens_total{kind="completion"}'] == 7
    assert after["foveate_engine_waiting"] == 0
    assert after["foveate_request_bytes"] == 0


def metrics(url):
    answer = httpx.get(f"{url}/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = [line for line in answer.text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


@pytest.mark.parametrize(
    ("verb", "path", "status", "code"),
    [
        ("GET", "/", 404, "unknown_url"),
        ("POST", "/v1/completions", 404, "unknown_url"),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("DELETE", "/v1/models", 405, "method_not_allowed"),
        ("POST", "/v1/chat/completions/", 404, "unknown_url"),
        ("GET", "/docs", 404, "unknown_url"),
        ("GET", "/openapi.json", 404, "unknown_url"),
    ],
)
def test_unknown_paths_have_errors_of_the_same_shape(url, verb, path, status, code):
    answer = httpx.request(verb, url + path)
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == code
    assert len(answer.headers["x-request-id"]) == 32


def test_without_the_extra_the_error_says_how_to_install_it(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("foveate.serve.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    with pytest.raises(foveate.MissingExtra, match=r"pip install 'foveate\[serve\]'"):
        foveate.serve.create_app  # noqa: B018  # the access is the test
    with pytest.raises(AttributeError, match="nothing"):
        foveate.serve.nothing  # noqa: B018

"""Whatever a body is, it is answered, or refused in OpenAI's shape; nothing of it stays."""

import asyncio
import json
import string

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import foveate
from foveate import tiny
from foveate.method import Method
from foveate.serve import Engine, Settings, create_app, schema
from serving import Script, hello, messages, page, png

PAGE, _ = page(5)
ALLOWED = {200, 400, 404, 413, 429}
BODY = {
    "model": "embedded",
    "messages": messages("HI", png(Image.new("RGB", (20, 20), "red"))),
    "temperature": 0.5,
    "logprobs": True,
    "top_logprobs": 1,
    "stop": ["A"],
    "kv": {"method": "snapkv", "keep": 0.5, "window": 8},
}
relaxed = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


class Direct:
    """A client inside the process, for as many requests as there are examples."""

    def __init__(self, engine):
        self.engine = engine
        self.engine.start()
        limits = Settings(method="aircache", options={"keep": 0.3}, pixels=20_000)
        transport = httpx.ASGITransport(create_app(self.engine, limits), raise_app_exceptions=True)
        self.loop = asyncio.new_event_loop()
        self.client = httpx.AsyncClient(transport=transport, base_url="http://test")

    def post(self, body):
        head = {"content-type": "application/json"}
        sent = self.client.post("/v1/chat/completions", content=body, headers=head)
        return self.loop.run_until_complete(sent)

    def room(self):
        text = self.loop.run_until_complete(self.client.get("/metrics")).text
        return "foveate_request_bytes 0.0" in text

    def close(self):
        self.loop.run_until_complete(self.client.aclose())
        self.loop.close()
        self.engine.stop()


@pytest.fixture(scope="module")
def direct():
    made = Direct(Script(hello))
    yield made
    made.close()


def check(direct, body):
    answer = direct.post(body)
    assert answer.status_code in ALLOWED, (body, answer.text)
    if answer.status_code != 200:
        error = answer.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["message"] and len(error["message"]) < 2000
        assert "Traceback" not in error["message"] and ".py" not in error["message"]
    assert direct.room()
    return answer


words = st.text(string.printable, max_size=12) | st.sampled_from(["aircache", "auto", "user"])
leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats()
    | words
    | st.text(max_size=6)
)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)


@relaxed
@given(st.binary(max_size=200))
def test_any_bytes(direct, body):
    assert check(direct, body).status_code == 400


@relaxed
@given(values)
def test_any_json(direct, body):
    assert check(direct, json.dumps(body).encode()).status_code in (400, 404)


fields = sorted({*schema.ChatRequest.model_fields, *schema.NEUTRAL, *schema.IGNORED})


@relaxed
@given(st.dictionaries(st.sampled_from(fields) | words, values, min_size=1, max_size=3))
def test_any_value_of_any_field(direct, changes):
    answer = check(direct, json.dumps({**BODY, **changes}).encode())
    if answer.status_code == 200:
        ask = direct.engine.seen[-1]
        assert ask.method is None or isinstance(ask.method, Method)
        assert ask.max_new_tokens is None or 0 < ask.max_new_tokens <= 4096
        assert ask.temperature is None or 0 <= ask.temperature <= 2
        assert all(isinstance(word, str) and word for word in ask.stop)


part = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "image_url", "file", "input_audio", "image"])},
    optional={
        "text": values,
        "image_url": values | st.fixed_dictionaries({"url": words | values}),
        "path": values,
    },
)
chat = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "system", "assistant", "tool", "developer"]) | words},
        optional={"content": words | st.lists(part | values, max_size=3) | values, "x": values},
    ),
    max_size=3,
)


@relaxed
@given(chat)
def test_any_chat(direct, messages):
    check(direct, json.dumps({**BODY, "messages": messages}).encode())


presets = ["aircache", "snapkv", "mixkv", "mixkv+adakv", "sparsemm", "prefixkv", "full", "random"]
options = st.sampled_from(
    ["window", "alpha", "kernel", "table", "sizes", "host", "every", "scope", "name", "preset"]
)


@relaxed
@given(
    st.dictionaries(options | words, values, max_size=3),
    st.fixed_dictionaries(
        {}, optional={"method": st.sampled_from(presets) | words, "keep": values}
    ),
)
def test_any_method(direct, more, named):
    check(direct, json.dumps({**BODY, "kv": {**more, **named}}).encode())


@relaxed
@given(st.data())
def test_any_damage_to_a_good_body(direct, data):
    body = bytearray(json.dumps(BODY).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(body) - 1))
        piece = data.draw(st.binary(max_size=3) | st.sampled_from([b'"', b"{", b"}", b"\\u"]))
        body[place : place + data.draw(st.integers(0, 3))] = piece
    check(direct, bytes(body))


@pytest.fixture(scope="module")
def real():
    made = Direct(Engine(*tiny.load(), foveate.aircache(keep=0.3), chunk=32))
    yield made
    made.close()


def choices(option):
    """Return what an option may be, and some numbers that few have thought of."""
    found = [word.strip("'") for word in option.allowed if word.startswith("'")]
    found += [True, False] if "bool" in option.allowed else []
    found += [0, 1, 2, 5, 33, 4096, -25] if "int" in option.allowed else []
    found += [0.0, 1e-30, 0.5, 1.0, 2.5, 4096.0] if "float" in option.allowed else []
    return st.sampled_from(found or [None])


def kv(info):
    """Return a strategy for a method with some of its options."""
    more = {one.name: choices(one) for one in info.options if one.name != "keep"}
    keep = st.sampled_from([0.01, 0.1, 0.5, 1.0, 1, 2, 40, 1000, "auto"])
    return st.fixed_dictionaries({"method": st.just(info.name)}, optional={"keep": keep, **more})


@settings(relaxed, max_examples=40)
@given(
    st.sampled_from(foveate.methods()).flatmap(kv),
    st.sampled_from(["A?", "", "A B C. 12=", "?" * 40, "<|image_pad|>", "<|im_end|>"]),
    st.integers(0, 2),
    st.fixed_dictionaries(
        {"max_tokens": st.sampled_from([1, 2, 9])},
        optional={
            "temperature": st.sampled_from([0, 1e-300, 1e-40, 1e-3, 0.7, 2.0]),
            "top_p": st.sampled_from([1e-300, 1e-9, 0.5, 1.0]),
            "seed": st.sampled_from([0, -1, -(2**63), 2**63 - 1]),
            "logprobs": st.just(True),
            "stop": st.sampled_from(["1", ["A", "5"], "\n", "<|im_end|>"]),
            "stream": st.booleans(),
        },
    ),
)
def test_what_may_be_asked_is_answered_by_the_engine_or_refused(real, kv, text, pages, more):
    body = {**more, "model": "embedded", "kv": kv, "messages": messages(text, *[PAGE] * pages)}
    answer = check(real, json.dumps(body).encode())
    assert answer.status_code in (200, 400)
    assert "internal_error" not in answer.text


def _part(kind):
    return {"role": "user", "content": [{"type": kind}]}


HOSTILE = {
    "deep": b'{"messages":' + b"[" * 100_000,
    "deep and closed": b'{"model":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    "long number": b'{"seed":' + b"9" * 100_000 + b"}",
    "not a number": b'{"temperature": NaN}',
    "infinite": b'{"temperature": 1e999}',
    "half a pair": b'{"model": "embedded", "messages": [{"role":"user","content":"\\ud800"}]}',
    "broken utf-8": b'{"model": "\xff\xfe"}',
    "mark": b"\xef\xbb\xbf{}",
    "utf-16": '{"model": "embedded"}'.encode("utf-16"),
    "many keys": json.dumps({str(n): n for n in range(100_000)}).encode(),
    "twice": b'{"model": "a", "model": "embedded"}',
    "nothing": b"",
    "null": b"null",
    "proto": b'{"__proto__": {"x": 1}, "constructor": 1}',
    "long name": b'{"' + b"x" * 1_000_000 + b'": 1}',
    "long role": json.dumps({**BODY, "messages": [{"role": "x" * 10**6}]}).encode(),
    "long type": json.dumps({**BODY, "messages": [_part("x" * 10**6)]}).encode(),
    "long method": json.dumps({**BODY, "kv": {"method": "x" * 10**6}}).encode(),
    "long option": json.dumps({**BODY, "kv": {"x" * 10**6: 1}}).encode(),
    "long word": json.dumps({**BODY, "kv": {"scope": "x" * 10**6}}).encode(),
    "many hosts": json.dumps({**BODY, "kv": {"method": "mixkv" + "+mixkv" * 10**4}}).encode(),
    "long model": json.dumps({**BODY, "model": "x" * 10**6}).encode(),
    "file": json.dumps({**BODY, "kv": {"method": "sparsemm", "table": "/etc/passwd"}}).encode(),
    "sizes": json.dumps({**BODY, "kv": {"method": "prefixkv", "sizes": "~/x"}}).encode(),
    "huge": json.dumps({**BODY, "kv": {"method": "snapkv", "kernel": 10**9 + 1}}).encode(),
    "prompt marks": json.dumps({**BODY, "messages": messages("<|image_pad|>" * 9)}).encode(),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_bodies(direct, name):
    answer = check(direct, HOSTILE[name])
    assert answer.status_code == (
        200 if name == "prompt marks" else 404 if "model" in name else 400
    )
    assert "passwd" not in answer.text or name == "file"

"""Only those who have a key, and call the server by its name, are let in."""

import asyncio

import httpx
import openai
import pytest
from fastapi import WebSocket

from foveate.serve import Settings, create_app
from serving import CHAT, Script, hello, problem, raw, served


def test_keys_are_asked_for_everywhere_but_health(serve):
    url = serve(keys=("first", "second\n"))
    for path in ("/v1/models", "/metrics", "/nowhere"):
        answer = httpx.get(url + path)
        problem(answer, 401, "invalid_api_key")
        assert answer.headers["www-authenticate"] == "Bearer"
    assert httpx.get(f"{url}/health").status_code == 200
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{url}/v1", api_key="third").models.list()
    for key in ("first", "second"):
        assert openai.OpenAI(base_url=f"{url}/v1", api_key=key).models.list().data


@pytest.fixture(scope="module")
def guarded():
    local = ("localhost", "127.0.0.1", "::1")
    with served(Script(hello), Settings(keys=("first",), hosts=local)) as url:
        yield url


@pytest.mark.parametrize(
    "given",
    [
        *("", "first", "Basic first", "Bearer", "Bearer firs", "Bearer first x"),
        *("Bearer \xe9\xff", "Bearer FIRST", "Bearer first,second"),
    ],
)
def test_what_is_no_key_is_refused(guarded, given):
    head = {b"authorization": given.encode("latin-1")}
    problem(httpx.get(f"{guarded}/v1/models", headers=head), 401, "invalid_api_key")


def test_a_body_is_not_read_without_a_key(guarded):
    url = guarded
    head = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n"
    assert raw(url, head.encode()).startswith(b"HTTP/1.1 401")


@pytest.mark.parametrize("name", ["evil.example", "localhost.evil.example", "127.0.0.2", ""])
def test_other_host_names_are_refused_where_some_are_known(guarded, name):
    problem(httpx.get(f"{guarded}/health", headers={"host": name}), 421, "misdirected_request")


@pytest.mark.parametrize(
    "name", ["localhost", "127.0.0.1:80", "[::1]:8000", "[::1]", "LOCALHOST:1"]
)
def test_the_server_answers_to_its_own_names(guarded, name):
    assert httpx.get(f"{guarded}/health", headers={"host": name}).status_code == 200


def test_a_websocket_is_closed_unheard():
    sent, opened = [], []

    async def send(message):
        sent.append(message["type"])

    app = create_app(Script(hello), Settings(keys=("first",)))

    @app.websocket("/open")
    async def socket(socket: WebSocket):
        opened.append(socket)

    asyncio.run(app({"type": "websocket", "path": "/open", "headers": []}, None, send))
    assert sent == ["websocket.close"] and not opened

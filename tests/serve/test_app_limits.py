"""What is too large, too slow, too much or without a key is refused, and leaves nothing."""

import json
import math
import socket
from urllib.parse import urlsplit

import httpx
import pytest

from foveate.errors import InputError
from foveate.serve import Settings, schema
from foveate.serve.engine.asking import Done, Piece
from serving import CHAT, Script, chat, hello, messages, problem, raw, room, served, until


@pytest.fixture(scope="module")
def url():
    with served(Script(hello), Settings(body_bytes=20_000, body_seconds=0.4)) as url:
        yield url


def test_a_long_body_is_refused_before_it_is_read(url):
    error = problem(httpx.post(url + CHAT, json=chat(user="x" * 30_000)), 413, "request_too_large")
    assert "20,000 bytes" in error["message"]


def test_a_body_that_hides_its_length_is_read_no_further(url):
    sent = []

    def endless():
        while True:
            sent.append(1)
            yield b" " * 1000

    head = {"content-type": "application/json"}
    try:
        answer = httpx.post(url + CHAT, content=endless(), headers=head, timeout=5)
        problem(answer, 413, "request_too_large")
    except httpx.TransportError:
        pass  # the server hung up while this was still sending
    assert len(sent) < 50_000
    assert httpx.post(url + CHAT, json=chat()).status_code == 200


def test_a_slow_body_is_given_up(url):
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    answer = raw(url, head.encode() + b"content-length: 100\r\n\r\n", b'{"mod')
    assert answer.startswith(b"HTTP/1.1 408") and b'"code":"timeout"' in answer


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_only_json_is_read_so_that_no_web_page_can_ask(url, kind):
    head = {} if kind is None else {"content-type": kind}
    problem(httpx.post(url + CHAT, content=json.dumps(chat()), headers=head), 415)


def waiting(ask, ticket):
    """Say one thing, and then nothing until somebody cancels."""
    if ask.stop:
        yield Piece("HEL")
    assert ticket.wait(20)
    yield Done("cancelled", 0, 0, 0, {})


@pytest.mark.parametrize("said", [[], ["X"]], ids=["silent", "begun"])
@pytest.mark.parametrize("stream", [False, True])
def test_whoever_leaves_is_cancelled(serve, stream, said):
    engine = Script(waiting)
    url = serve(engine=engine)
    place = urlsplit(url)
    body = json.dumps(chat(stream=stream, stop=said)).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    with socket.create_connection((place.hostname, place.port)) as peer:
        peer.sendall(head.encode() + f"content-length: {len(body)}\r\n\r\n".encode() + body)
        until(lambda: engine.seen)
        if stream and said:
            until(lambda: b"HEL" in peer.recv(65536))
    until(lambda: engine.cancelled and room(url) == 0)


@pytest.mark.parametrize("said", [[], ["X"]], ids=["silent", "begun"])
@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_takes_too_long_is_given_up(serve, stream, said):
    engine = Script(waiting)
    url = serve(engine=engine, seconds=0.2)
    answer = httpx.post(url + CHAT, json=chat(stream=stream, stop=said))
    if stream and said:
        assert answer.status_code == 200 and '"code":"timeout"' in answer.text
    else:
        problem(answer, 504, "timeout")
        assert answer.headers["x-should-retry"] == "false"
    assert engine.cancelled and room(url) == 0


def endless(ask, ticket):
    """Say more than a connection holds until somebody cancels."""
    while not ticket.is_set():
        yield Piece("A" * 1_000_000)
        ticket.wait(0.02)
    yield Done("cancelled", 0, 0, 0, {})


def test_whoever_does_not_read_is_given_up(serve):
    engine = Script(endless)
    url = serve(engine=engine, seconds=0.7)
    place = urlsplit(url)
    body = json.dumps(chat(stream=True)).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    with socket.create_connection((place.hostname, place.port)) as peer:
        peer.sendall(head.encode() + f"content-length: {len(body)}\r\n\r\n".encode() + body)
        until(lambda: engine.cancelled and room(url) == 0)
        until(lambda: 'status="499"' in httpx.get(f"{url}/metrics").text)


def test_requests_in_flight_share_a_room(serve):
    engine = Script(waiting)
    url = serve(engine=engine, room_bytes=15_000)
    place = urlsplit(url)
    body = json.dumps(chat(user="x" * 3_000, max_tokens=1)).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    with socket.create_connection((place.hostname, place.port)) as peer:
        peer.sendall(head.encode() + f"content-length: {len(body)}\r\n\r\n".encode() + body)
        until(lambda: engine.seen)
        answer = httpx.post(url + CHAT, content=body, headers={"content-type": "application/json"})
        problem(answer, 429, "queue_full")
    until(lambda: room(url) == 0)


@pytest.mark.parametrize(
    ("limit", "sent", "name"),
    [
        ({"max_new_tokens": 10}, {"max_tokens": 11}, "max_tokens"),
        ({"max_new_tokens": 10}, {"max_completion_tokens": 11}, "max_completion_tokens"),
        ({"messages": 2}, {"messages": messages() * 3}, "messages"),
        ({"pictures": 1}, {"messages": messages("A", "data:,", "data:,")}, "messages"),
        ({"characters": 9}, {"messages": messages("ABCDE") * 2}, "messages"),
    ],
)
def test_counts_have_limits(serve, limit, sent, name):
    error = problem(httpx.post(serve(**limit) + CHAT, json=chat(**sent)), 400, "invalid_value")
    assert error["param"] == name and "allowed here" in error["message"]


@pytest.mark.parametrize(
    "many",
    [[0] * 20_001, [[]] * 20_001, {str(n): "" for n in range(20_001)}, ["\\" + '"'] * 20_001],
)
def test_a_body_of_countless_values_is_not_read(serve, monkeypatch, many):
    monkeypatch.setattr(schema, "read", None)  # which needs a thousand times the body's bytes
    answer = httpx.post(serve() + CHAT, json=chat(messages=many))
    assert "20,000 values" in problem(answer, 400)["message"]


def test_signs_of_a_text_are_no_values(serve):
    text = messages('"{[,\\' * 30_000)
    assert httpx.post(serve() + CHAT, json=chat(messages=text)).status_code == 200


def test_an_answer_needs_room_before_it_is_written(serve):
    url = serve(room_bytes=1_100_000, max_new_tokens=10**6)
    assert httpx.post(url + CHAT, json=chat(max_tokens=3_000)).status_code == 200
    assert httpx.post(url + CHAT, json=chat()).status_code == 200  # as long as the engine likes
    for more in ({"max_tokens": 5_000}, {"max_tokens": 400, "logprobs": True, "top_logprobs": 3}):
        error = problem(httpx.post(url + CHAT, json=chat(**more)), 413, "request_too_large")
        assert "1,100,000 for all" in error["message"]
    assert room(url) == 0


def test_settings_that_allow_nothing_are_refused():
    numbers = ({"pixels": 0}, {"seconds": -1}, {"seconds": math.nan}, {"pixels": 10**9})
    texts = ({"keys": (" ",)}, {"keys": "secret"}, {"hosts": "a.test"}, {"methods": "full"})
    for wrong in (*numbers, *texts):
        with pytest.raises(InputError):
            Settings(**wrong)


@pytest.mark.parametrize(
    "name", ["", "*", "*.a.test", "https://a.test", "a.test:8000", "a.test/", "[::1]", "\xe4.test"]
)
def test_names_that_no_client_could_call_a_server_by_are_refused(name):
    with pytest.raises(InputError, match="is not a host name"):
        Settings(hosts=("localhost", "::1", "a-b_c.test", name))


def test_keys_are_not_shown():
    assert "private" not in repr(Settings(keys=("private",)))

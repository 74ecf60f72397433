"""What is too large, too slow, too much or without a key is refused, and leaves nothing."""

import json
import logging
import socket
import time
from urllib.parse import urlsplit

import httpx
import openai
import pytest

from foveate.errors import InputError, MethodError
from foveate.serve import Settings, logs
from foveate.serve.asking import Busy, Done, Failed, Piece, TooLarge
from serving import Script, hello, messages, served

CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def url():
    with served(Script(hello), Settings(body_bytes=20_000, body_seconds=0.4)) as url:
        yield url


@pytest.fixture
def serve():
    """Serve a script with settings, until the test is over."""
    contexts = []

    def start(events=hello, engine=None, **settings):
        contexts.append(served(engine or Script(events), Settings(**settings)))
        return contexts[-1].__enter__()

    yield start
    for context in reversed(contexts):
        context.__exit__(None, None, None)


def chat(**more):
    return {"model": "embedded", "messages": messages("HI"), **more}


def problem(answer, status, code=None):
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert code is None or error["code"] == code
    return error


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


def raw(url, *parts, wait=0.0):
    """Send bytes as they are; return all that comes back until the server hangs up."""
    place = urlsplit(url)
    with socket.create_connection((place.hostname, place.port), timeout=5) as peer:
        for part in parts:
            peer.sendall(part)
            time.sleep(wait)
        return b"".join(iter(lambda: peer.recv(65536), b""))


def test_a_slow_body_is_given_up(url):
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    answer = raw(url, head.encode() + b"content-length: 100\r\n\r\n", b'{"mod')
    assert answer.startswith(b"HTTP/1.1 408") and b'"code":"timeout"' in answer


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_only_json_is_read_so_that_no_web_page_can_ask(url, kind):
    head = {} if kind is None else {"content-type": kind}
    problem(httpx.post(url + CHAT, content=json.dumps(chat()), headers=head), 415)


def test_keys_are_asked_for_everywhere_but_health(serve):
    url = serve(keys=("first", "second"))
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


ERRORS = [
    (Busy("queue full"), 429, "queue_full"),
    (TooLarge("900 tokens"), 400, "context_length_exceeded"),
    (InputError("bad picture"), 400, "invalid_value"),
    (MethodError("bad method"), 400, "invalid_value"),
    (RuntimeError("CUDA secret /etc/passwd"), 500, "internal_error"),
    (MemoryError("secret"), 500, "internal_error"),
]


class Failing(Script):
    """Fails as the prompt says: at once or later, with the error of that number."""

    def __init__(self):
        super().__init__(lambda ask, ticket: iter([Failed(self.error(ask))]))

    def error(self, ask):
        return ERRORS[int(ask.messages[0]["content"][0]["text"][-1])][0]

    def submit(self, ask, sink):
        if "EARLY" in ask.messages[0]["content"][0]["text"]:
            raise self.error(ask)
        return super().submit(ask, sink)


@pytest.fixture(scope="module")
def failing():
    with served(Failing()) as url:
        yield url


@pytest.mark.parametrize("when", ["EARLY", "LATE"])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("number", range(len(ERRORS)))
def test_failures_of_the_engine_have_a_status(failing, number, stream, when):
    error, status, code = ERRORS[number]
    body = chat(stream=stream, messages=messages(f"{when} {number}"))
    answer = httpx.post(failing + CHAT, json=body)
    told = problem(answer, status, code)
    assert "secret" not in answer.text
    assert status == 500 or str(error) == told["message"]
    if status == 429:
        assert answer.headers["retry-after"] == "1"
    assert room(failing) == 0


def room(url):
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    return next(float(x.split()[1]) for x in lines if x.startswith("foveate_request_bytes "))


def test_a_failure_in_the_middle_of_a_stream_is_its_last_event(serve):
    def breaks(ask, ticket):
        yield Piece("HEL")
        raise RuntimeError("secret")

    url = serve(breaks)
    answer = httpx.post(url + CHAT, json=chat(stream=True))
    events = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    assert json.loads(events[-1])["error"]["code"] == "internal_error"
    assert "secret" not in answer.text and "[DONE]" not in answer.text
    with (
        openai.OpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0) as client,
        pytest.raises(openai.APIError, match="failed at this request"),
    ):
        list(client.chat.completions.create(**chat(), stream=True))


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


def until(holds):
    for _ in range(500):
        if holds():
            return
        time.sleep(0.01)
    raise AssertionError("it never came to that")


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


def test_requests_in_flight_share_a_room(serve):
    engine = Script(waiting)
    url = serve(engine=engine, room_bytes=5_000)
    place = urlsplit(url)
    body = json.dumps(chat(user="x" * 3_000)).encode()
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
    ],
)
def test_counts_have_limits(serve, limit, sent, name):
    error = problem(httpx.post(serve(**limit) + CHAT, json=chat(**sent)), 400, "invalid_value")
    assert error["param"] == name and "allowed here" in error["message"]


@pytest.mark.parametrize("words", [False, True])
def test_the_log_has_sizes_and_no_words_unless_told(caplog, words):
    def breaks(ask, ticket):
        raise RuntimeError(f"cannot tokenise {ask.messages}")

    caplog.set_level(logging.INFO, "foveate.serve")
    for events in (hello, breaks):
        settings = Settings(log_prompts=words, keys=("very-private-key",))
        head = {"authorization": "Bearer very-private-key"}
        with served(Script(events), settings) as url:
            httpx.post(url + CHAT, json=chat(messages=messages("MYSECRET")), headers=head)
    lines = [logs.Lines().format(record) for record in caplog.records if "foveate" in record.name]
    told = [json.loads(line) for line in lines]
    good, failed, bad = (one for one in told if one["event"] in ("request", "failed"))
    assert (good["status"], good["completion_tokens"], good["path"]) == (200, 3, CHAT)
    assert bad["status"] == 500 and failed["id"] == bad["id"] and failed["frames"]
    assert failed["error"] == "RuntimeError"
    assert ("MYSECRET" in "".join(lines)) is words
    assert "very-private-key" not in "".join(lines)


def test_an_engine_that_died_is_told_at_once(serve):
    engine = Script(hello)
    url = serve(engine=engine)
    assert httpx.get(f"{url}/health").status_code == 200
    engine.stop()
    problem(httpx.get(f"{url}/health"), 503)
    problem(httpx.post(url + CHAT, json=chat()), 503)
    assert room(url) == 0


def test_settings_that_allow_nothing_are_refused():
    for wrong in ({"pixels": 0}, {"seconds": -1}, {"pixels": 10**9}, {"keys": (" ",)}):
        with pytest.raises(InputError):
            Settings(**wrong)
    assert "private" not in repr(Settings(keys=("private",)))

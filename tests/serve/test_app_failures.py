"""What fails has a status and a place in the log, and tells clients nothing of the inside."""

import asyncio
import json
import logging
import threading

import httpx
import openai
import pytest

from foveate.errors import InputError, MethodError
from foveate.serve import Settings, create_app, logs
from foveate.serve.engine.asking import Busy, Done, Failed, Piece, TooLarge
from serving import CHAT, Script, chat, hello, messages, problem, room, served

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


def test_a_failure_in_the_middle_of_a_stream_is_its_last_event(serve, caplog):
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
    failures = [record.told for record in caplog.records if record.getMessage() == "failed"]
    assert [told["error"] for told in failures] == ["RuntimeError"] * 2


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


def waits(ask, ticket):
    """Say nothing until somebody cancels."""
    assert ticket.wait(20)
    yield Done("cancelled", 0, 0, 0, {})


def test_whoever_still_waits_when_the_server_goes_down_is_told():
    engine = Script(waits)
    app = create_app(engine)
    body, sent = json.dumps(chat()).encode(), []
    head = [(b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": CHAT, "headers": head, "query_string": b""}
    given = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive():
        return given.pop() if given else await asyncio.Future()

    async def send(message):
        sent.append(message)

    async def cancelled():
        async with app.router.lifespan_context(app):
            task = asyncio.create_task(app(scope, receive, send))
            while not engine.seen:
                await asyncio.sleep(0.01)
            task.cancel()  # as uvicorn does at the end of its patience
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(cancelled())
    assert sent[0]["status"] == 503 and json.loads(sent[1]["body"])["error"]["code"] == "cancelled"
    assert app.state.room.taken == 0


def test_others_go_on_while_the_engine_stops():
    engine, going = Script(hello), threading.Event()
    stop = engine.stop
    engine.stop = lambda: (stop(), heard.append(going.wait(5)))
    app, heard = create_app(engine), []

    async def end():
        async with app.router.lifespan_context(app):
            asyncio.get_running_loop().call_later(0.05, going.set)

    asyncio.run(end())
    assert heard == [True]


def test_an_engine_that_died_is_told_at_once(serve):
    engine = Script(hello)
    url = serve(engine=engine)
    assert httpx.get(f"{url}/health").status_code == 200
    engine.stop()
    problem(httpx.get(f"{url}/health"), 503)
    problem(httpx.post(url + CHAT, json=chat()), 503)
    assert room(url) == 0

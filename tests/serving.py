"""The slow twin of the engine, an engine that follows a script, and servers around engines."""

import base64
import contextlib
import io
import queue
import socket
import threading
import time
from functools import cache
from urllib.parse import urlsplit

import httpx
import uvicorn
from PIL import Image

from foveate import tiny
from foveate.cli.answers import answer, prepare_chats
from foveate.cli.models import Loaded
from foveate.serve import create_app
from foveate.serve.engine.asking import Ask, Done, Failed, Piece
from foveate.serve.ui.page import add_page
from foveate.tiny.documents import document

CHAT = "/v1/chat/completions"
SEED, ASKED = 9, 2  # of a document, and a question that is right at 10 % and wrong at 1 %


class Script:
    """Answers with what a function yields, one request after the other, in a thread of its own."""

    def __init__(self, events):
        self.events = events
        self.waiting = queue.Queue()
        self.thread = None
        self.seen = []
        self.cancelled = []

    def start(self):
        if self.thread is None:
            self.thread = threading.Thread(target=self.work, daemon=True)
            self.thread.start()

    @property
    def is_running(self):
        return self.thread is not None and self.thread.is_alive()

    def stop(self):
        if self.thread is not None:
            self.waiting.put(None)
            self.thread.join()
            self.thread = None

    def submit(self, ask, sink):
        self.seen.append(ask)
        ticket = threading.Event()
        self.waiting.put((ask, sink, ticket))
        return ticket

    def cancel(self, ticket):
        if not ticket.is_set():
            self.cancelled.append(ticket)
        ticket.set()

    def stats(self):
        return {"waiting": self.waiting.qsize(), "kv_bytes": 0, "model": "x"}

    def work(self):
        while (item := self.waiting.get()) is not None:
            ask, sink, ticket = item
            try:
                for event in self.events(ask, ticket):
                    sink(event)
            except Exception as error:
                sink(Failed(error))
            ticket.set()


@cache
def embedded():
    return Loaded("embedded", *tiny.load())


def twin(ask, method):
    """Return the greedy answer by `generate` in a `compress` context: slow, and easy to believe."""
    loaded = embedded()
    inputs = prepare_chats(loaded, [ask.messages])
    return answer(loaded, inputs, method, ask.max_new_tokens or 64).text


def hello(ask, ticket):
    """Say something short."""
    yield Piece("HEL")
    yield Piece("LO")
    yield Done("stop", 5, 3, 2, {"method": "none"})


@contextlib.contextmanager
def served(engine, settings=None, *, ui=False):
    """Run a server in a thread; yields its address."""
    listening = socket.create_server(("127.0.0.1", 0))
    app = create_app(engine, settings)
    if ui:
        add_page(app)
    config = uvicorn.Config(app, log_config=None, lifespan="on")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        thread.join(0.01)
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


def png(image):
    """Return a picture as a data: address."""
    held = io.BytesIO()
    image.save(held, "PNG")
    return "data:image/png;base64," + base64.b64encode(held.getvalue()).decode()


@cache
def page(seed=5):
    """Return a small document, as an address, and its questions."""
    made = document(seed, layout="rows", grid=(8, 8))
    return png(made.pages[0]), made.questions


def messages(text="ABC?", *urls):
    """Return a chat of one turn."""
    content = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return [{"role": "user", "content": [*content, {"type": "text", "text": text}]}]


def ask_of(text, *urls):
    """Return the same as the engine gets it."""
    images = [Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) for url in urls]
    content = [{"type": "image", "image": image} for image in images]
    return Ask([{"role": "user", "content": [*content, {"type": "text", "text": text}]}])


def chat(**more):
    return {"model": "embedded", "messages": messages("HI"), **more}


def problem(answer, status, code=None):
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert code is None or error["code"] == code
    return error


def raw(url, *parts, wait=0.0):
    """Send bytes as they are; return all that comes back until the server hangs up."""
    place = urlsplit(url)
    with socket.create_connection((place.hostname, place.port), timeout=5) as peer:
        for part in parts:
            peer.sendall(part)
            time.sleep(wait)
        return b"".join(iter(lambda: peer.recv(65536), b""))


def room(url):
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    return next(float(x.split()[1]) for x in lines if x.startswith("foveate_request_bytes "))


def until(holds):
    for _ in range(500):
        if holds():
            return
        time.sleep(0.01)
    raise AssertionError("it never came to that")

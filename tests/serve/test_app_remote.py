"""Pictures are fetched from allowed hosts at public addresses alone, and not for long."""

import asyncio
import base64
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from PIL import Image

from foveate.errors import InputError
from foveate.serve import Settings, remote
from foveate.serve.problems import Problem
from foveate.serve.remote import Remote, is_public
from foveate.serve.room import Room
from serving import CHAT, Script, chat, hello, messages, png, served

RED = Image.new("RGB", (40, 30), "red")


@pytest.mark.parametrize(
    "inner",
    [
        *("127.0.0.1", "127.9.9.9", "0.0.0.0", "10.0.0.1", "172.16.3.4", "192.168.1.1"),
        *("169.254.169.254", "100.64.0.1", "192.0.0.1", "198.18.0.1", "224.0.0.1", "240.0.0.1"),
        *("255.255.255.255", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1"),
        *("ff02::1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "2002:7f00:1::1"),
        *("64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2001:db8::1", "2001:0:1:1:1:1:f5ff:fffe"),
        *("::127.0.0.1", "64:ff9b:1::1", "fec0::1"),
    ],
)
def test_addresses_inside_are_not_public(inner):
    assert not is_public(inner)


@pytest.mark.parametrize("outer", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_addresses_outside_are_public(outer):
    assert is_public(outer)


def ask(url, address):
    return httpx.post(url + CHAT, json=chat(messages=messages("HI", address)))


def fetched(client, url):
    return asyncio.run(client.fetch(url, "here", Room(1_000_000).share()))


@pytest.mark.parametrize(
    "url",
    [
        "https://other.example.org/a.png",
        "https://images.example.org.evil.org/a.png",
        "https://evil.org/images.example.org",
        "https://images.example.org@evil.org/",
        "https://evil.org@images.example.org/",
        "https://user:word@images.example.org/",
        "https://images.example.org:8443/",
        "https://images.example.org:80/",
        "http://images.example.org/",
        "https://images.example.org./",
        "https://IMAGES.example.org\\@evil.org/",
        "https://images.example.org%2eevil.org/",
        "https:///a.png",
        "https://127.0.0.1/",
        "https://2130706433/",
        "https://0x7f.1/",
    ],
)
def test_only_allowed_hosts_are_looked_up(monkeypatch, url):
    monkeypatch.setattr(remote, "resolved", None)
    with pytest.raises(Problem, match=r"not fetched from there|malformed") as caught:
        fetched(Remote(["images.example.org"], 1000, 1), url)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "addresses", [["10.0.0.1"], ["8.8.8.8", "127.0.0.1"], ["::1"], ["169.254.169.254"], []]
)
def test_allowed_hosts_that_lead_inside_are_not_asked(monkeypatch, addresses):
    monkeypatch.setattr(remote, "resolved", lambda host, port: addresses)
    monkeypatch.setattr(httpx.AsyncClient, "stream", None)
    with pytest.raises(Problem, match="not public"):
        fetched(Remote(["images.example.org"], 1000, 1), "https://images.example.org/a.png")


def test_an_address_in_the_list_of_hosts_is_still_no_way_inside():
    with pytest.raises(Problem, match="not public"):
        fetched(Remote(["http://127.0.0.1:80"], 1000, 1), "http://127.0.0.1/a.png")


def test_endless_addresses_are_not_remembered(monkeypatch):
    monkeypatch.setattr(remote, "urlsplit", None)
    with pytest.raises(Problem, match="too long"):
        fetched(Remote([], 1000, 1), "https://images.example.org/" + "x" * 8192)


@pytest.mark.parametrize("end", ["\x00", "\x7f", "x" * 70_000, "\ud800"], ids=ascii)
def test_addresses_that_no_request_can_have_are_malformed(monkeypatch, end):
    monkeypatch.setattr(remote, "resolved", lambda host, port: ["8.8.8.8"])
    with pytest.raises(Problem, match="malformed"):
        fetched(Remote(["images.example.org"], 1000, 1), f"https://images.example.org/{end}")


@pytest.mark.parametrize(
    "entry",
    [
        *("", "*", "*.example.org", "ftp://x.org", "x.org/path", "a@x.org", "x.org#a", "x.org?a"),
        *("x.org:99999", "x.org:a", "[::1", "b\xfccher.example", "https://", "://x.org", ":80"),
    ],
)
def test_entries_that_are_no_hosts_are_refused(entry):
    with pytest.raises(InputError, match="is not a host"):
        Remote([entry], 1000, 1)


class Store(BaseHTTPRequestHandler):
    """Gives a picture, an endless one, a slow one, or sends clients elsewhere."""

    asked: list = []  # noqa: RUF012
    stopped = threading.Event()

    def do_GET(self):
        self.asked.append((self.path, self.headers["host"], self.headers["cookie"]))
        status = {"/there": 302, "/gone": 404}.get(self.path, 200)
        self.send_response(status)
        if status == 302:
            self.send_header("location", "/a.png")
        self.end_headers()
        if self.path == "/a.png":
            self.wfile.write(base64.b64decode(png(RED).partition(",")[2]))
        try:
            while self.path in ("/endless", "/slow"):
                self.wfile.write(b"x" * (1 if self.path == "/slow" else 10_000))
                if self.path == "/slow" and self.stopped.wait(0.05):
                    return
        except OSError:
            pass

    def log_message(self, *words):
        pass


@pytest.fixture
def store(monkeypatch):
    """A store of pictures whose name leads to this machine, which counts as public."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Store)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    looked = []
    monkeypatch.setattr(remote, "resolved", lambda *name: looked.append(name) or ["127.0.0.1"])
    monkeypatch.setattr(remote, "is_public", lambda address: address == "127.0.0.1")
    Store.asked.clear()
    Store.stopped.clear()
    yield f"http://pictures.test:{server.server_port}", looked
    Store.stopped.set()
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_allowed_picture_is_fetched_from_the_address_that_was_checked(store):
    place, looked = store
    engine = Script(hello)
    with served(engine, Settings(picture_hosts=(place,))) as url:
        assert ask(url, f"{place}/a.png").status_code == 200
        answer = ask(url, f"{place}/there")
        assert answer.status_code == 400 and "status 302" in answer.json()["error"]["message"]
    assert engine.seen[0].messages[0]["content"][0]["image"].size == (40, 30)
    port = int(place.rpartition(":")[2])
    assert looked == [("pictures.test", port)] * 2  # and never again between check and use
    host = f"pictures.test:{port}"
    assert Store.asked == [("/a.png", host, None), ("/there", host, None)]


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/gone", 400, "status 404"),
        ("/endless", 413, "more than 50,000 bytes"),
        ("/slow", 400, "could not be fetched"),
    ],
)
def test_a_store_cannot_keep_or_fill_the_server(store, path, status, words):
    place, _ = store
    with pytest.raises(Problem, match=words) as caught:
        fetched(Remote([place], 50_000, 0.5), place + path)
    assert caught.value.status == status


def test_what_is_fetched_takes_of_the_room_as_it_comes(store):
    place, _ = store
    share = Room(20_000).share()
    with pytest.raises(Problem, match="20,000 for all"):
        asyncio.run(Remote([place], 50_000, 5).fetch(f"{place}/endless", "here", share))


def test_a_store_that_is_not_there_is_a_problem_without_details(store):
    with pytest.raises(Problem, match=r"could not be fetched from pictures.test in 0.5 s"):
        fetched(Remote(["http://pictures.test:1"], 1000, 0.5), "http://pictures.test:1/")

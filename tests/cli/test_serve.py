"""`foveate serve` answers OpenAI's client as its options say, and says what is wrong with them."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys

import httpx
import openai
import pytest

import foveate
from foveate.cli.serve import _bound, _hosts, _keys, _run, _shown, parse_bytes
from foveate.errors import InputError
from foveate.serve import Settings, create_app, logs
from serving import Script, ask_of, hello, messages, page, twin


@contextlib.contextmanager
def serving(*words, **variables):
    """Run the command; yields the process and the address that it says."""
    command = [sys.executable, "-m", "foveate.cli", "serve", "--port", "0", *map(str, words)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, **pipes, env={**os.environ, **variables})
    try:
        first = process.stdout.readline()
        assert " at http" in first, process.communicate()
        yield process, first.split()[-1]
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)


def test_the_command_serves_with_its_options(tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("# ours\nsecond-key\n\nthird-key\n")
    words = ("--method", "snapkv", "--keep", "40", "--option", "window=16", "--kv-bytes", "4MiB")
    words += ("--model-name", "reader", "--api-key-file", keys, "--max-new-tokens", 20)
    with serving(*words, FOVEATE_API_KEY="first-key") as (process, url):
        address, (question, *_) = page(5)
        for key in ("first-key", "third-key"):
            client = openai.OpenAI(base_url=url, api_key=key, max_retries=0)
            assert [one.id for one in client.models.list()] == ["reader"]
        said = client.chat.completions.create(
            model="reader", messages=messages(question.text, address), temperature=0
        )
        method = foveate.snapkv(keep=40, window=16)
        assert said.choices[0].message.content == twin(ask_of(question.text, address), method)
        assert (said.kv["method"], said.kv["keep"]) == ("snapkv", 40)
        with pytest.raises(openai.BadRequestError, match="at most 20"):
            client.chat.completions.create(model="reader", messages=messages("A"), max_tokens=21)
        with pytest.raises(openai.AuthenticationError):
            openai.OpenAI(base_url=url, api_key="# ours", max_retries=0).models.list()
        evil = httpx.get(f"{url}/models", headers={"host": "evil.example"})
        assert evil.status_code == 421
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    lines = [json.loads(line) for line in err.splitlines() if line.startswith("{")]
    requests = [line for line in lines if line["event"] == "request"]
    assert [line["status"] for line in requests] == [200, 200, 200, 400, 401, 421]
    assert question.text not in err + out and "-key" not in err + out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--kv-bytes", "much"), "is not a size"),
        (("--allow-host", "*"), "is not a host"),
        (("--server-name", "https://a.test"), "is not a host name"),
        (("--api-key-file", "nowhere"), "cannot be read"),
        (("--api-key-file", os.devnull), "holds no key"),
        (("--keep", "few"), "is not a number"),
        (("--method", "aircash"), "did you mean 'aircache'"),
        (("--max-pixels", "1000000000"), "is too much"),
        (("--client-methods", "full, aircash"), "did you mean 'aircache'"),
        (("--client-methods", "mixkv+adakv"), "give both, as mixkv,adakv"),
        (("--ui", "--host", "0.0.0.0"), "give --api-key-file"),
        (("--ui", "--client-methods", "aircache"), "add full to"),
    ],
)
def test_wrong_words_are_said_before_anything_is_loaded(run, words, says, monkeypatch):
    monkeypatch.setattr("foveate.cli.models.load", None)
    done = run("serve", *words)
    assert done.code == 2 and says in done.err


def test_a_port_that_others_have_is_said_before_anything_is_loaded(run, monkeypatch):
    monkeypatch.setattr("foveate.cli.models.load", None)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run("serve", "--port", str(taken.getsockname()[1]))
    assert done.code == 2 and "give another port" in done.err


def test_whoever_reads_the_address_may_ask_at_once(capsys, monkeypatch):
    opened = []

    def start(server, sockets):
        (listening,) = sockets
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # else whoever does not read stays for ever
            assert listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 120_000
        opened.append(socket.create_connection(listening.getsockname(), timeout=5))
        assert server.config.http == "h11"  # which bounds what comes before the body

    engine = Script(hello)
    engine.notes, caught = (), []
    monkeypatch.setattr("uvicorn.Server.run", start)
    monkeypatch.setattr("uvicorn.Config.configure_logging", lambda config: None)
    monkeypatch.setattr("logging.captureWarnings", caught.append)
    with _bound("127.0.0.1", 0) as listening:
        settings = Settings(model="[/x]")
        _run(create_app(engine, settings), settings, listening, "127.0.0.1", False)
    (peer,) = opened
    peer.close()
    assert caught == [True] and "py.warnings" in logs.CONFIG["loggers"]  # are lines of the log
    assert capsys.readouterr().out.startswith("[/x] at http://127.0.0.1:")


def test_keys_are_read_as_they_are_meant(tmp_path, monkeypatch):
    keys = tmp_path / "keys"
    keys.write_bytes("first\r\n  # an old one\r\n\r\n".encode("utf-8-sig"))  # as Windows does
    monkeypatch.setenv("FOVEATE_API_KEY", "second\n")
    assert _keys(keys) == ("second", "first")
    assert _keys(None) == ("second",)


def test_clients_do_not_hear_where_a_model_lies(tmp_path):
    (tmp_path / "reader").mkdir()
    assert _shown(str(tmp_path / "reader")) == _shown(f"{tmp_path}/reader/") == "reader"
    assert (_shown(None), _shown("someone/model")) == ("embedded", "someone/model")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "127.0.0.1", "127.8.8.8", "::1"])
def test_local_addresses_answer_to_local_names_alone(host):
    assert {"localhost", host} <= set(_hosts(host, None))
    assert _hosts("0.0.0.0", None) == () and _hosts(host, ["a.test"]) == ("a.test",)


@pytest.mark.parametrize("text", ["", "0", "-1GiB", "1 PiB", "GiB", "1e3", "nan"])
def test_sizes_that_are_none(text):
    with pytest.raises(InputError, match="--kv-bytes"):
        parse_bytes("--kv-bytes", text)

"""The load program finds nothing wrong with the server in a few seconds, and would if there was."""

import json
import random

import hostile
import load
import pytest

from foveate.serve import Settings
from foveate.serve.engine.asking import Done, Failed, Piece
from serving import Script, hello, served


def test_a_short_run_against_the_server(tmp_path, capsys):
    out = tmp_path / "load.json"
    words = ["--minutes", "0.05", "--clients", "3", "--pages", "1", "--out", str(out)]
    assert load.main(words) == 0
    told = json.loads(out.read_text())
    assert told["wrong"] == told["unexpected_count"] == told["server_failures"] == 0
    assert told["requests"] >= told["good"]["answered"] > 0
    assert set(told["held_at_the_end"].values()) == {0.0}
    assert 0 < told["latency_seconds"]["p50"] <= told["latency_seconds"]["p95"]
    assert told["memory_mib"]["start"] > 100 and told["memory_mib"]["samples"]
    assert json.loads(capsys.readouterr().out)["requests"] == told["requests"]


def wrong(ask, ticket):
    yield Piece("NO")
    yield Done("stop", 1, 1, 0, {})


def failing(ask, ticket):
    yield Failed(RuntimeError("broken"))


@pytest.mark.parametrize(
    ("events", "name"), [(wrong, "wrong"), (failing, "failed"), (hello, "answered")]
)
def test_wrong_answers_and_failures_are_told_apart(events, name):
    tally = load.Tally()
    body = hostile.address(load.document(1).pages[0])
    question = load.Question("A?", body, {}, "HELLO")
    with served(Script(events), Settings(keys=(load.KEY,))) as url:
        load.ask_well(f"{url}/v1", [question], tally, random.Random(1))
    assert tally.good[name] == 1 and len(tally.bad) == (name != "answered")


def test_a_server_that_takes_hostile_requests_is_blamed(monkeypatch):
    some = [one for one in hostile.REQUESTS if one[0] in ("no key", "host", "bomb")]
    monkeypatch.setattr(hostile, "REQUESTS", some)
    tally = load.Tally()
    with served(Script(hello)) as url:  # it asks for no key and knows no host names
        for seed in range(20):
            load.ask_badly(f"{url}/v1", tally, random.Random(seed))
    assert {words.partition(":")[0] for words in tally.bad} == {"no key", "host"}
    assert tally.hostile["bomb: 413"] > 0

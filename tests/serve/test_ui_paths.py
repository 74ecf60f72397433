"""What the live page asks of the server, without a browser: shapes, limits, and who may not."""

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

import foveate
from foveate import tiny
from foveate.errors import InputError
from foveate.serve import Engine, Settings, create_app
from foveate.serve.ui.page import add_page
from serving import Script, hello, messages, page, served

OWN = {"method": "aircache", "options": {"keep": 0.3}}


@pytest.fixture(scope="module")
def url():
    engine = Engine(*tiny.load(), foveate.aircache(keep=0.3), chunk=16)
    with served(engine, Settings(**OWN), ui=True) as url:
        yield url


def body(text="T?", **more):
    return {"model": "embedded", "messages": messages(text, page(5)[0]), "stream": True, **more}


def chunks(url, **more):
    answer = httpx.post(f"{url}/ui/look", json=body(**more), timeout=60)
    lines = [line[6:] for line in answer.text.split("\n\n") if line]
    assert lines[-1] == "[DONE]", answer.text
    return [json.loads(line) for line in lines[:-1]]


def looks(found):
    return [chunk["look"] for chunk in found if "look" in chunk]


def test_without_the_page_its_paths_are_unknown():
    with served(Script(hello)) as url:
        for answer in (httpx.get(f"{url}/"), httpx.post(f"{url}/ui/look", json={})):
            assert answer.status_code == 404
            assert answer.json()["error"]["code"] == "unknown_url"


def test_the_page_allows_what_is_in_it_alone(url):
    answer = httpx.get(f"{url}/")
    policy = dict(
        part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; ")
    )
    assert policy["default-src"] == policy["form-action"] == policy["frame-ancestors"] == "'none'"
    assert policy["connect-src"] == "'self'" and policy["img-src"] == "data:"
    for name in ("style-src", "script-src"):
        assert re.fullmatch(r"'sha256-[A-Za-z0-9+/=]{44}'", policy[name])
    assert not re.search(
        r"<[a-z][^<>]*\son[a-z]+\s*=|\sstyle=|(src|href)=[\"']?(http|/)", answer.text
    )
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["cache-control"] == "no-store"


def test_the_server_s_name_is_only_text():
    with served(Engine(*tiny.load()), Settings(model="</title><script>alert(1)"), ui=True) as url:
        text = httpx.get(f"{url}/").text
    assert text.count("<script") == 2 and "<title>&lt;/title&gt;&lt;script&gt;alert(1)" in text
    assert json.loads(text.split('id="server">')[1].split("</script>")[0])["model"].endswith("(1)")


def test_a_look_tells_what_is_kept_and_then_the_answer(url):
    found = chunks(url, kv={"keep": 0.3})
    first, last = looks(found)
    order = ["look" in chunk or chunk["choices"][0]["delta"].get("content") for chunk in found]
    assert order[1] is True and order[-1] is True and order[2] == "6"
    assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in found) == "671418"
    run = first["run"]
    told = {"method": "aircache", "keep": 0.3, "budget": "30 %", "late": False}
    assert {name: run[name] for name in told} == told
    assert 0 < run["visual_kept"] < 20 and run["bytes_stored"] < run["bytes_full"]
    assert first["visual"] == 64 and first["pictures"][0]["src"] is None
    assert (first["pictures"][0]["width"], first["pictures"][0]["height"]) == (128, 128)
    (view,) = first["pictures"][0]["sheets"][0]["views"]
    assert view["cells"] == list(range(64)) and view["rows"] == 8
    assert last["run"]["tokens"] == 7 and last["run"]["prefill_ms"] > 0
    assert found[-1]["kv"]["method"] == "aircache"


def test_methods_that_evict_while_they_write_tell_it_again(url):
    *held, last = looks(chunks(url, kv={"method": "h2o", "keep": 0.2}))
    assert len(held) == 2 and held[0]["run"]["late"] and "kept_visual" not in last["run"]
    before, after = (look["run"]["visual_kept"] for look in held)
    assert after <= before


def test_the_full_cache_keeps_all(url):
    first, _ = looks(chunks(url, kv={"method": "full"}))
    assert first["run"]["visual_kept"] == 64 and first["run"]["window"] is None


@pytest.mark.parametrize(
    ("more", "status", "param"),
    [
        ({"stream": False}, 400, "stream"),
        ({"kv": {"method": "nothing"}}, 400, "kv"),
        ({"model": "other"}, 404, "model"),
        ({"max_tokens": 10**6}, 400, "max_tokens"),
    ],
)
def test_looks_have_the_limits_of_chats(url, more, status, param):
    answer = httpx.post(f"{url}/ui/look", json=body(**more))
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)


def test_differences_are_told_and_limited(url):
    def post(**given):
        return httpx.post(f"{url}/ui/difference", json=given)

    assert post(full="A red car", said="A blue car").json()["parts"] == [
        ["same", "A "], ["full", "red "], ["said", "blue "], ["same", "car"]
    ]  # fmt: skip
    for given in ({"full": "A"}, {"full": "A", "said": 1}, {"full": "A" * 2001, "said": ""}):
        answer = post(**given)
        assert answer.status_code == 400 and answer.json()["error"]["code"] == "invalid_value"


def test_differences_are_found_one_at_a_time(url, monkeypatch):
    beside, most = [], []

    def slow(full, said):
        beside.append(said)
        time.sleep(0.05)
        most.append(len(beside))
        beside.remove(said)
        return []

    monkeypatch.setattr("foveate.serve.ui.page.difference", slow)
    with ThreadPoolExecutor(4) as many:
        given = [{"full": "A", "said": str(n)} for n in range(4)]
        answers = many.map(lambda one: httpx.post(f"{url}/ui/difference", json=one), given)
        assert [answer.status_code for answer in answers] == [200] * 4
    assert most == [1] * 4


def test_a_page_that_cannot_compare_is_refused():
    app = create_app(Engine(*tiny.load()), Settings(methods=("aircache",)))
    with pytest.raises(InputError, match="add full to"):
        add_page(app)

"""The live page in a real browser, against a real server: drop, ask, move the budget."""

import json
import re
import threading

import httpx
import pytest

import foveate
from foveate import tiny
from foveate.serve import Engine, Settings
from foveate.tiny.documents import document
from serving import SEED, served

OWN = {"method": "aircache", "options": {"keep": 0.3}}
HOSTILE = "</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def engine():
    """The engine behind the page, which stands still while its gate is closed.

    It closes the gate itself after `pause` tokens of an answer.
    """
    engine = Engine(*tiny.load(), foveate.aircache(keep=0.3), chunk=64)
    engine.gate, engine.pause = threading.Event(), None
    engine.gate.set()
    step = engine.step

    def gated():
        engine.gate.wait(60)
        more = step()
        if any(request.tokens == engine.pause for request in engine._batch):
            engine.pause = None
            engine.gate.clear()
        return more

    engine.step = gated
    return engine


@pytest.fixture(scope="module")
def url(engine):
    with served(engine, Settings(**OWN), ui=True) as url:
        yield url


def ask(opened, sheet):
    """Choose a file, write a question, press Enter, and wait until all is known."""
    path, question, _ = sheet
    opened.page.set_input_files("#file", path)
    opened.page.wait_for_selector("img.sight")
    assert opened.page.evaluate("document.activeElement.id") == "question"
    opened.page.keyboard.type(question)
    opened.page.keyboard.press("Enter")
    opened.page.wait_for_selector("#verdict .sign", timeout=60_000)


def stand(opened, budget):
    """Move the slider by keyboard, and wait until what it stands at is known."""
    opened.page.focus("#budget")
    opened.page.keyboard.press("Home")
    for _ in range({"1 %": 0, "5 %": 3, "10 %": 5, "full": 11}[budget]):
        opened.page.keyboard.press("ArrowRight")
    start = "Full cache" if budget == "full" else f"aircache, {budget}:"
    opened.page.locator("#caption").filter(has_text=start).wait_for(timeout=60_000)
    opened.page.wait_for_selector("#answer[aria-busy=false]")
    opened.page.wait_for_selector("#verdict .sign")


def until(opened, condition):
    """Wait for something outside the page, and let the page go on meanwhile."""
    for _ in range(3000):
        if condition():
            return
        opened.page.wait_for_timeout(10)
    raise AssertionError("it did not come about")


def kept(opened):
    return float(re.search(r"[\d.]+", opened.text("#fact-tokens dd"))[0])


def test_a_file_a_question_and_a_budget(visit, url, sheet):
    opened = visit(url)
    ask(opened, sheet)
    right = sheet[2]
    assert opened.text("#answer") == opened.text("#full") == right
    assert opened.text("#verdict").endswith("The same as with the full cache.")
    assert kept(opened) == pytest.approx(0.3 * 256, abs=1)  # as the server was told
    stand(opened, "10 %")
    assert kept(opened) == pytest.approx(26, abs=1) and opened.text("#answer") == right
    stand(opened, "1 %")
    assert kept(opened) == pytest.approx(2.5, abs=0.5)
    assert opened.text("#full") == right
    assert "Not what the full cache says" in opened.text("#verdict")
    lost, shared = (opened.page.locator(place) for place in ("#answer del", "#answer span"))
    assert shared.count() and lost.count()
    assert "".join(opened.page.locator("#answer > :not(ins)").all_inner_texts()) == right
    assert opened.page.get_attribute("#budget", "aria-valuetext").startswith("1 %, 2.5 of 256")
    stand(opened, "full")
    assert kept(opened) == 256 and opened.text("#answer") == right
    rows = opened.page.locator("#numbers tbody tr")
    assert rows.count() == 4  # full, 30 %, 10 %, 1 %
    assert opened.said == []
    assert [one for one in opened.asked if not one.startswith((f"{url}/", "data:"))] == []


def test_patches_show_while_the_answer_is_written(visit, url, sheet, engine):
    opened = visit(url)
    engine.pause = 3
    try:
        opened.page.set_input_files("#file", sheet[0])
        opened.page.fill("#question", sheet[1])
        opened.page.press("#question", "Enter")
        opened.page.locator("#answer[aria-busy=true]").filter(has_text=sheet[2][:3]).wait_for()
        assert opened.text("#answer") == sheet[2][:3]
        assert opened.text("#caption").startswith("aircache, 30 %: 77 of 256")
        assert opened.text("#verdict").startswith("Asking")
    finally:
        engine.gate.set()
    opened.page.wait_for_selector("#verdict .sign", timeout=60_000)
    assert opened.text("#answer") == sheet[2]


def test_what_is_known_is_not_asked_again(visit, url, sheet):
    opened = visit(url)
    ask(opened, sheet)
    stand(opened, "1 %")
    stand(opened, "10 %")
    before = len(opened.asked)
    stand(opened, "1 %")
    opened.page.get_by_role("button", name="aircache, 10 %").click()
    opened.page.locator("#caption").filter(has_text="aircache, 10 %").wait_for()
    assert opened.page.locator("#budget").input_value() == "5"
    assert len(opened.asked) == before


def test_patches_are_those_that_the_cache_keeps(visit, url, sheet):
    opened = visit(url)
    ask(opened, sheet)
    opened.page.select_option("#method", "snapkv")
    opened.page.locator("#caption").filter(has_text="snapkv, 30 %").wait_for(timeout=60_000)
    opened.page.wait_for_selector("#head")  # whose heads have patches of their own
    opened.page.locator("#layer").fill("4")
    opened.page.locator("#head").fill("2")
    opened.page.locator("#caption").filter(has_text="layer 3, head 1:").wait_for()
    model, processor = tiny.load()
    chat = [{"role": "user", "content": [{"type": "image", "image": document(SEED).pages[0]}]}]
    chat[0]["content"].append({"type": "text", "text": sheet[1]})
    inputs = processor.apply_chat_template(
        chat, tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True
    )
    with foveate.compress(model, foveate.snapkv(keep=0.3)) as session:
        model.generate(**inputs, max_new_tokens=2)
    marks = inputs["input_ids"][0][session.report.kept(3, 0, 1)] == processor.image_token_id
    assert kept(opened) == marks.sum()


def test_who_moves_on_leaves_the_engine_free(visit, url, sheet, engine):
    opened = visit(url)
    ask(opened, sheet)
    before = engine.stats()
    engine.gate.clear()
    opened.page.focus("#budget")
    try:
        opened.page.keyboard.press("Home")
        opened.page.wait_for_function("document.querySelector('#stop.on')")
        until(opened, lambda: engine.stats().requests == before.requests + 1)
        opened.page.keyboard.press("ArrowRight")
        until(opened, lambda: engine.stats().requests == before.requests + 2)
        opened.page.click("#stop")
        opened.page.locator("#verdict").filter(has_text="Stopped.").wait_for()
    finally:
        engine.gate.set()
    until(opened, lambda: engine.stats().cancelled == before.cancelled + 2)
    after = engine.stats()
    assert (after.running, after.waiting, after.prefilling, after.kv_bytes) == (0, 0, 0, 0)
    assert after.requests == before.requests + 2
    assert opened.said == []
    stand(opened, "1 %")  # and it goes on


def test_hostile_words_are_only_words(visit, url, sheet):
    opened = visit(url)
    asked = []

    def answer(route):
        asked.append(route.request.post_data_json)
        question = {"type": "text", "text": sheet[1]}
        asked[-1]["messages"][0]["content"][1] = question
        said = httpx.post(route.request.url, json=asked[-1], timeout=60).text
        route.fulfill(body=hostile(said), content_type="text/event-stream")

    opened.page.route("**/ui/look", answer)
    ask(opened, (sheet[0], HOSTILE, None))
    assert len(asked) == 2
    assert opened.text("#answer") == opened.text("#full") == HOSTILE
    for place in ("#prompt", "#numbers", "#tried"):
        assert HOSTILE in opened.text(place)
    assert opened.page.locator("img, main script").count() == 0
    assert opened.page.title().startswith("</script>")
    assert opened.said == []
    opened.page.unroute("**/ui/look")
    opened.page.press("#question", "Enter")  # the embedded model has no such signs
    opened.page.locator("#verdict").filter(has_text="onerror").wait_for()
    assert opened.page.locator("main script, [onerror]").count() == 0


def hostile(stream):
    """Return a stream whose texts are all hostile."""
    chunks = []
    for line in stream.split("\n\n")[:-2]:
        chunk = json.loads(line[6:])
        look = chunk.get("look", {})
        if "prompt" in look:
            look["prompt"].append({"text": HOSTILE, "special": False})
            look["notes"].append(HOSTILE)
            look["run"]["notes"].append(HOSTILE)
        if "content" in chunk["choices"][0]["delta"]:
            chunk["choices"][0]["delta"]["content"] = ""
        chunks.append(chunk)
    chunks[-1]["choices"][0]["delta"]["content"] = HOSTILE
    return "".join(f"data: {json.dumps(x)}\n\n" for x in chunks) + "data: [DONE]\n\n"


def test_an_example_is_one_press_away_on_a_phone(visit, url):
    opened = visit(url, 390, 844, color_scheme="dark")
    wide = "document.documentElement.scrollWidth"
    assert opened.page.evaluate(wide) <= 390
    opened.page.get_by_role("button", name="Example: table").press("Enter")
    opened.page.wait_for_selector("#verdict .sign", timeout=60_000)
    assert opened.page.evaluate(wide) <= 390
    for place in ("#sight", "#question", "#answer", "#budget"):
        box = opened.page.locator(place).bounding_box()
        assert box["y"] >= 0 and box["y"] + box["height"] <= 844, place
    other = opened.page.locator(".tries .chip").nth(1)
    other.click()
    assert opened.page.input_value("#question") == other.inner_text()


def test_every_control_is_reached_and_named(visit, url, sheet):
    opened = visit(url)
    ask(opened, sheet)
    seen = set()
    opened.page.evaluate("document.activeElement.blur()")
    for _ in range(40):
        opened.page.keyboard.press("Tab")
        seen.add(opened.page.evaluate("document.activeElement.id"))
    assert {"choose", "sight", "question", "ask", "method", "budget", "layer"} <= seen
    nameless = opened.page.evaluate(
        """() => [...document.querySelectorAll("button, input:not([hidden]), select, textarea")]
            .filter((one) => !(one.labels?.length || one.ariaLabel || one.textContent.trim()))
            .map((one) => one.outerHTML.slice(0, 80))"""
    )
    assert nameless == []
    assert opened.page.get_attribute("#answer", "aria-live") == "polite"
    assert opened.page.get_attribute("#answer", "aria-busy") == "false"
    assert opened.page.get_attribute("#verdict", "role") == "status"


def test_long_answers_are_scrolled_by_keyboard(visit, url):
    opened = visit(url)
    show = """(words) => window.foveate.page.answer.show(
        { full: { answer: words } }, { method: "aircache", budget: "full" }, { full: true }, false
    )"""
    for words, index in (("many words " * 200, "0"), ("few", None)):
        opened.page.evaluate(show, words)
        for place in ("#answer", "#full"):
            assert opened.page.get_attribute(place, "tabindex") == index

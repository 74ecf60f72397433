"""The page of what nobody thought of: other scripts, long answers, many methods, failures."""

from foveate.report.words import difference


def test_what_is_read_from_right_to_left_begins_there(show, values):
    values["question"] = "ما هو لون السيارة؟"
    opened = show(values)
    left = """one => {
        const range = document.createRange();
        range.selectNodeContents(one);
        return range.getBoundingClientRect().left - one.getBoundingClientRect().left;
    }"""
    assert opened.page.eval_on_selector("h1", left) > 100
    assert opened.page.eval_on_selector("#answer", left) < 10


def test_long_answers_leave_the_controls_in_sight(show, values):
    values["full"]["answer"] = "one thing and another, " * 200
    for run in values["runs"]:
        run["answer"] = "nothing of that kind, " * 200
        run["parts"] = [["full", values["full"]["answer"]], ["said", run["answer"]]]
    opened = show(values)
    assert "Not what the full cache says" in opened.text("#verdict")
    box = opened.page.locator("#budget").bounding_box()
    assert box["y"] + box["height"] <= 800
    opened.page.emulate_media(media="print")
    high = opened.page.eval_on_selector("#answer", "one => [one.clientHeight, one.scrollHeight]")
    assert high[0] >= high[1]  # paper does not scroll


def test_ten_methods_have_ten_lines(show, values):
    first = values["runs"]
    values["runs"] = [{**run, "method": f"{run['method']} {i}"} for i in range(5) for run in first]
    opened = show(values)
    looks = opened.page.eval_on_selector_all(
        "#curve .key svg",
        "all => all.map((one) => one.innerHTML.replace(/class=.series[^>]*/, ''))",
    )
    assert len(looks) == 10 == len({*looks})


def test_it_begins_with_a_run_that_did_not_fail(show, values):
    for run in values["runs"]:
        run["answer"] = "something else"
    failed = [
        {"method": run["method"], "keep": 3, "budget": "3 tokens", "error": "less than the window"}
        for run in values["runs"][::3]
    ]
    values["runs"] += failed
    opened = show(values)
    assert opened.text("#caption").startswith("aircache, 1 %: ")
    opened.change(method="aircache", budget="3 tokens")
    assert opened.page.locator(".word.goes, .word.stays").count() == 0
    opened.page.get_by_text("The layers as a table").click()
    assert "This run failed" in opened.text("#layers details")
    assert opened.said == []


def test_layers_that_look_alike_are_not_between(show, values):
    for layer, kept in zip(values["runs"][0]["layers"], (14.2, 14.4, 14.3) * 2, strict=True):
        layer["visual"] = kept
    opened = show(values)
    opened.change(method="aircache", budget="50 %")
    assert opened.text("#layers .caption") == "Every layer keeps about 14 visual tokens."


def test_shares_of_one_head_are_of_layers(show, comparison):
    opened = show(comparison)
    opened.change(method="snapkv", budget="50 %", head=1)
    opened.page.focus("#sight")
    told = set()
    for key in ("ArrowUp", *["ArrowRight"] * 6, "ArrowUp", *["ArrowLeft"] * 12):
        opened.page.keyboard.press(key)
        told.add(opened.text("#caption").partition("kept in")[2].partition(";")[0])
    assert any(one.endswith("% of layers") for one in told)
    assert not any("heads" in one for one in told)


def test_marks_of_many_budgets_do_not_lie_on_one_another(show, values):
    (run, *_) = values["runs"]
    values["runs"] = [{**run, "budget": f"{10 * i} %", "visual_kept": 14 * i} for i in range(1, 10)]
    opened = show(values, width=390)
    shown = opened.page.eval_on_selector_all(
        ".ticks span",
        """all => all.filter((one) => getComputedStyle(one).visibility === "visible")
            .map((one) => one.textContent)""",
    )
    assert shown == ["10 %", "full"]


def test_the_key_of_lost_looks_is_as_strong_as_that_of_kept_ones(show, comparison):
    opened = show(comparison)
    opened.change(looks=True)
    strengths = opened.page.eval_on_selector_all(
        ".swatch", "all => all.map((one) => getComputedStyle(one).opacity)"
    )
    assert strengths == ["1", "1"]


def test_answers_keep_their_lines(show, values):
    run = values["runs"][0]
    values["full"]["answer"], run["answer"] = "one\ntwo", "one two"
    run["parts"] = difference("one\ntwo", "one two")
    opened = show(values)
    opened.change(method="aircache", budget="50 %")
    assert opened.text("#verdict").endswith("with other spaces or lines between them.")
    opened.change(budget="full")
    assert opened.text("#answer") == "one\ntwo"


def test_what_is_evicted_while_it_writes_is_said(show, values):
    values["runs"][0]["late"] = True
    notes = show(values).text("#numbers .notes")
    assert "aircache at 50 %: evicts while it writes" in notes
    assert "aircache at 50 %: attention kept is that on what the prompt left" in notes

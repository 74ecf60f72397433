"""Every command and program of the documents is run, or says before it why not."""

import re
import shlex

import check_docs
import pytest
import typer
from doc_blocks import REASONS, BlockError, blocks

from desk import MAKEFILE, ROOT, Desk
from foveate import cli

PAGES = [path for path in check_docs.documents(ROOT) if path.name != "CHANGELOG.md"]
WITH_BLOCKS = [path for path in PAGES if "```" in path.read_text()]
SPAN = re.compile(r"`((?:foveate|make) [a-z][^`]*)`")


@pytest.mark.parametrize("path", WITH_BLOCKS, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_document_says_can_be_done(path, tmp_path, monkeypatch):
    Desk(tmp_path, monkeypatch).read(path)


def test_the_index_lists_every_page():
    index = (ROOT / "docs/index.md").read_text()
    pages = [path.name for path in (ROOT / "docs").glob("*.md") if path.name != "index.md"]
    assert [name for name in pages if f"({name})" not in index] == []


def commands_in_sentences():
    return sorted({span for path in PAGES for span in SPAN.findall(path.read_text())})


@pytest.mark.parametrize("span", commands_in_sentences())
def test_commands_in_sentences_exist(span):
    """Options are looked up; values are often left out in a sentence."""
    program, name, *words = shlex.split(span)
    if program == "make":
        assert re.search(rf"^{name}:", MAKEFILE, re.MULTILINE)
        return
    command = typer.main.get_command(cli.application((name,))).commands[name]
    known = {option for given in command.params for option in given.opts} | {"--help"}
    assert {word for word in words if word.startswith("--")} <= known


@pytest.fixture
def page(tmp_path):
    def page(text):
        path = tmp_path / "page.md"
        path.write_text(text)
        return path

    return page


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("```\nls\n```\n", "no language"),
        ("```ruby\nputs 1\n```\n", "'ruby'"),
        ("``` sh\nls\n```\n", "' sh'"),
        ("1. First\n\n   ~~~\n   ls\n   ~~~\n", "no language"),
        ("```text\nfoveate demo\n```\n", "call it sh"),
        ("<!-- test: skip laziness -->\n```sh\nls\n```\n", "'laziness' is no reason"),
        ("<!-- test: skip gpu: here -->\n```sh\nls\n```\n", "'here' are to be skipped"),
        ("<!-- test: replace a => b -->\n```sh\nls\n```\n", "'a' is to be replaced"),
        ("<!-- test: perhaps -->\n```sh\nls\n```\n", "'perhaps' says nothing"),
        ("<!-- test: skip gpu -->\nwords\n```sh\nls\n```\n", "without a block"),
        ("<!-- test: skip gpu -->\n```text\nls\n```\n", "which is not run"),
        ("```json\n{,}\n```\n", "no JSON"),
    ],
)
def test_a_block_that_nobody_can_judge_is_an_error(page, text, says):
    with pytest.raises(BlockError, match=says):
        blocks(page(text))


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("```sh\nfalse\n```\n", AssertionError),
        ("```sh\nfoveate demo --colour red\n```\n", AssertionError),
        ("<!-- test: skip minutes -->\n```sh\nfoveate demo --colour red\n```\n", Exception),
        ("```sh\nmake tea\n```\n", AssertionError),
        ("```python\n1 / 0\n```\n", ZeroDivisionError),
        ("<!-- test: raises KeyError -->\n```python\n1 / 0\n```\n", AssertionError),
        ("<!-- test: raises KeyError -->\n```python\n1 / 1\n```\n", BaseException),
        ("<!-- test: exits 2 -->\n```sh\ntrue\n```\n", AssertionError),
        ("<!-- test: skip download -->\n```python\nfor\n```\n", SyntaxError),
    ],
)
def test_what_does_not_work_is_found(page, tmp_path, monkeypatch, text, error):
    monkeypatch.setattr("desk.ROOT", tmp_path)
    for name in ("examples", "benchmarks/results", "docs/charts"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "Makefile").write_text(MAKEFILE)
    path = page(text)
    (tmp_path / "desk").mkdir()
    with pytest.raises(error):
        Desk(tmp_path / "desk", monkeypatch).read(path)


def test_blocks_build_on_one_another_and_are_made_small(page, tmp_path, monkeypatch, capfd):
    text = "<!-- test: replace 1000 => 3 -->\n```python\nn = 1000\n```\n"
    text += "```python\nimport pathlib; pathlib.Path('n').write_text(str(n))\n```\n"
    text += (
        "<!-- test: skip gpu: rm\n-->\n```console\n$ cat n\n3\n$ rm n\n```\n```sh\ncat n n\n```\n"
    )
    Desk(tmp_path, monkeypatch).read(page(text))
    assert capfd.readouterr().out == "333"


def test_what_is_added_stands_before_a_remark(page, tmp_path, monkeypatch, capfd):
    text = "<!-- test: add three -->\n```sh\necho two   # is not much\n```\n"
    Desk(tmp_path, monkeypatch).read(page(text))
    assert capfd.readouterr().out == "two three\n"


def test_excuses_are_few_and_explained():
    assert len(REASONS) <= 6
    used = {reason for path in WITH_BLOCKS for block in blocks(path) for reason in reasons(block)}
    assert used <= {*REASONS}


def reasons(block):
    return {block.note.whole, *(reason for reason, _ in block.note.lines)} - {""}

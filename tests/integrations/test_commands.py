"""Every command in the page about harnesses has options that exist and methods that can be made."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from foveate.cli import application
from foveate.cli.options import parse_entry, parse_keep
from foveate.errors import MethodError
from foveate.eval.local.shapes import shape
from foveate.integrations.compression import take_apart

PAGE = (Path(__file__).resolve().parents[2] / "docs/harnesses.md").read_text()
LINES = [
    shlex.split(line)
    for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]
# Of models that harnesses load; whatever else is given must be ours.
LOADING = {"pretrained", "base", "dtype", "device", "attn", "batch_size", "force_simple"}
STOCK = {"min_pixels", "max_pixels", "max_num_frames"}  # of lmms-eval's qwen2_vl
TABLES = {"heads.json", "redundancy.json"}  # which a reader measures first


def argument(words, name):
    return words[words.index(name) + 1]


def starting(*first):
    found = [words for words in LINES if words[: len(first)] == list(first)]
    assert found
    return found


def check_arguments(text):
    """Make the method that the arguments ask for."""
    given = dict(word.split("=", 1) for word in text.split(","))
    known = LOADING | (STOCK if "base" in given else set())
    tables = [name for name in ("table", "host_table") if given.get(name) in TABLES]
    if tables:
        with pytest.raises(MethodError, match="json"):  # there is none, but it would be read
            take_apart(given, known)
        del given[tables[0]]
    compression, _ = take_apart(given, known)
    return compression.method


@pytest.mark.parametrize("words", starting("lmms-eval", "eval"), ids=" ".join)
def test_lmms_eval(words):
    assert argument(words, "--model") in ("foveate", "foveate_wrap")
    wrapped = argument(words, "--model") == "foveate_wrap"
    assert ("base=" in argument(words, "--model_args")) == wrapped
    check_arguments(argument(words, "--model_args"))


@pytest.mark.parametrize(
    "words", starting("python", "-m", "foveate.integrations.lm_eval"), ids=" ".join
)
def test_lm_eval(words):
    assert argument(words, "--model") == "foveate"
    check_arguments(argument(words, "--model_args"))
    assert argument(words, "--tasks").startswith("longbench")


@pytest.mark.parametrize(
    "words", starting("python", "-m", "foveate.integrations.vlmeval"), ids=" ".join
)
def test_vlmevalkit(words):
    check_arguments(words[3])
    assert words[4] == "run.py"
    assert words.count("--model") == 1


@pytest.mark.parametrize("words", starting("foveate"), ids=" ".join)
def test_our_own_command(words):
    command = typer.main.get_command(application(words[1:2])).commands[words[1]]
    given = command.make_context(words[1], words[2:]).params  # raises for what is no option
    if words[1] != "eval":
        return
    if given["shape"] is not None:
        shape(given["shape"])
    named = [*(given["methods"] or "").split(","), *given["entry"]]
    entries = [parse_entry(text) for text in named if text]
    assert entries
    for keep in given["keep"].split(","):
        assert all(entry.method(parse_keep(keep)) is not None for entry in entries)


ROWS = re.findall(r"`(method=[^`]*)`", PAGE)


@pytest.mark.parametrize("text", sorted({row for row in ROWS if row != "method="}))
def test_arguments_in_tables(text):
    check_arguments(text)


CALLS = re.findall(r"`((?:lookm|h2o|roco|snapkv)\([^`]*\))`", PAGE)


@pytest.mark.parametrize("text", sorted(set(CALLS)))
def test_entries_in_tables(text):
    assert parse_entry(text).method(0.2) is not None

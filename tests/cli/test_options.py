"""Words of the command line that belong elsewhere are sent there."""

import pytest

import foveate
from foveate.cli import grids
from foveate.cli.options import build_method
from foveate.errors import InputError


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["keep=0.2"], "give --keep 0.2"),
        (["name=random"], "give --method random"),
        (["alpha=0.9", "alpha=0.8"], "alpha came twice"),
    ],
)
def test_options_with_a_place_of_their_own_are_sent_there(words, message):
    with pytest.raises(InputError, match=message):
        build_method("aircache", None, words)


def test_a_method_among_the_tasks_is_sent_to_the_methods():
    with pytest.raises(InputError, match=r"'snapkv' is a method.*as --methods aircache,snapkv"):
        grids.tasks(["lookup-256", "snapkv"], [], {}, None)


def test_none_is_a_word_where_an_option_has_it():
    assert build_method("lookm", "0.2", ["merge=none"]) == foveate.lookm(0.2, merge="none")
    assert build_method("snapkv", "0.2", ["pooling=none"]) == foveate.snapkv(0.2, pooling="none")
    assert build_method("elastic", "0.5", ["merge=none"]) == foveate.elastic(0.5, merge=None)
    assert build_method("mixkv+adakv", "0.5", ["layers=pyramid"]) == foveate.mixkv(
        0.5, host="adakv", layers="pyramid"
    )

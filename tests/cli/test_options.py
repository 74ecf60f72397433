"""Words of the command line that belong elsewhere are sent there."""

import pytest

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

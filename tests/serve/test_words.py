"""Text comes as soon as it may, whole characters only, and never a part of a stop string."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from foveate.serve.engine.asking import Chance
from foveate.serve.engine.words import Words


def decode(ids: list[int]) -> str:
    """Tokens that are bytes."""
    return bytes(ids).decode("utf-8", errors="replace")


def chance(token: int) -> Chance:
    return Chance(token, "", 0.0)


def told(words: Words, data: bytes) -> tuple[list[str], list[int]]:
    """The pieces, and the tokens whose chances came with them."""
    found = []
    for token in data:
        found.append(words.add(token, chance(token)))
        if words.stopped:
            break
    found.append(words.finish())
    pieces = [piece for piece in found if piece is not None]
    return [x.text for x in pieces], [c.token for x in pieces for c in x.chances]


TEXT = st.text(st.sampled_from("aab€\u00e9\U0001f600 "), max_size=20)
STOPS = st.lists(st.text(st.sampled_from("ab€ "), min_size=1, max_size=4), max_size=3)


@given(TEXT, STOPS)
@example("aab", ["ab"])
@example("a\u20ac", ["\u20ac"])
def test_the_pieces_are_the_text_before_the_first_stop_string(text, stops):
    words = Words(decode, stops)
    pieces, tokens = told(words, text.encode())
    places = [text.find(stop) for stop in stops if stop in text]
    ends = [text.find(stop) + len(stop) for stop in stops if stop in text]
    if not places:
        assert "".join(pieces) == text and not words.stopped
        assert bytes(tokens) == text.encode()
        return
    # what was known when the first stop string was complete
    known = text[: min(ends)]
    expected = known[: min(known.find(stop) for stop in stops if stop in known)]
    assert "".join(pieces) == expected and words.stopped
    assert text.encode().startswith(bytes(tokens))
    assert decode(tokens).startswith(expected)


@given(TEXT, STOPS)
def test_no_piece_is_broken_or_has_to_be_taken_back(text, stops):
    pieces, _ = told(Words(decode, stops), text.encode())
    assert all("\ufffd" not in piece for piece in pieces)


def test_text_waits_only_while_it_may_become_a_stop_string():
    words = Words(decode, ["END", "\n\n"])
    pieces = [words.add(token) for token in b"aE NEN\nb"]
    assert [None if x is None else x.text for x in pieces] == [
        "a", None, "E ", "N", None, None, "EN", "\nb",
    ]  # fmt: skip
    assert words.finish() is None


def test_what_never_becomes_a_character_is_told_at_the_end():
    words = Words(decode)
    assert words.add(0xE2) is None and words.add(0x82) is None
    assert words.finish().text == "\ufffd"


def test_a_special_token_in_between_costs_no_space():
    """As decoders of llama do, which strip the first space of what they are given."""
    words = {1: " Hello", 2: "", 3: " world"}

    def stripping(ids: list[int]) -> str:
        return "".join(words[one] for one in ids).removeprefix(" ")

    ids = [2, 1, 2, 2, 3, 2, 3]
    told_words = Words(stripping)
    pieces = [told_words.add(token) for token in ids]
    assert "".join(x.text for x in pieces if x is not None) == stripping(ids)


@pytest.mark.parametrize("stops", [[], ["", "x"]])
def test_an_empty_stop_string_stops_nothing(stops):
    assert told(Words(decode, stops), b"ab")[0] == ["a", "b"]

"""Times are taken in turns; ratios are those within a round."""

import pytest

from foveate.bench import Spread, timing
from foveate.errors import InputError


def test_turns_put_another_variant_first():
    turns = [timing.turned(["a", "b", "c"], number) for number in range(-1, 3)]
    assert [turn[0] for turn in turns] == ["c", "a", "b", "c"]
    assert all(sorted(turn) == ["a", "b", "c"] for turn in turns)


def test_spread_is_median_and_range():
    spread = Spread.of([3.0, 1.0, 7.0])
    assert (spread.median, spread.low, spread.high, spread.count) == (3.0, 1.0, 7.0, 3)
    assert str(spread) == "3.00 (1.00 to 7.00)"


def test_ratios_are_taken_within_each_round():
    found = timing.summary({"a": [2.0, 30.0, 4.0], "b": [1.0, 10.0, 4.0]}, [("a", "b")])
    assert found["ratios"]["a / b"] == {"median": 2.0, "low": 1.0, "high": 3.0, "count": 3}
    assert found["milliseconds"]["b"]["median"] == 4.0


def test_work_is_timed_with_the_clock_that_is_given():
    ticks = iter([1.0, 1.25])
    assert timing.milliseconds(lambda: None, "cpu", lambda: next(ticks)) == 250.0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("cpu", "int8", "wall"), "bfloat16"),
        (("cpu", "float32", "sun"), "wall or cpu"),
        (("cuda", "float32", "cpu"), "cannot time work on cuda"),
    ],
)
def test_what_cannot_be_timed_is_refused(words, says):
    with pytest.raises(InputError, match=says):
        timing.check_setting(*words)

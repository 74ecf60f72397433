"""Times are taken in turns; ratios are those within a round."""

from collections import Counter
from itertools import pairwise

import pytest

from foveate.bench import Spread, timing
from foveate.errors import InputError


def test_every_variant_follows_every_other_one():
    orders = [timing.shuffled(["a", "b", "c"], number) for number in range(-1, 60)]
    assert all(sorted(order) == ["a", "b", "c"] for order in orders)
    assert {order[0] for order in orders} == {"a", "b", "c"}
    behind = Counter(pair for order in orders for pair in pairwise(order))
    assert len(behind) == 6 and min(behind.values()) > 10
    assert timing.shuffled(["a", "b", "c"], 7) == timing.shuffled(["a", "b", "c"], 7)


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

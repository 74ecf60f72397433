"""Scopes: which tier every token is in."""

import pytest
import torch

from foveate.errors import MethodError
from foveate.scope import All, Visual, VisualFirst
from samples import kinds_of

KINDS = kinds_of("ppp t vv s vv t", "t vvv s vvvv t")


@pytest.mark.parametrize(
    ("scope", "first", "second"),
    [
        (Visual(), [-1, -1, -1, 2, 0, 0, 2, 0, 0, 2], [2, 0, 0, 0, 2, 0, 0, 0, 0, 2]),
        (All(), [-1, -1, -1, 0, 0, 0, 0, 0, 0, 0], [0] * 10),
        (All(2, 1), [-1, -1, -1, 3, 3, 0, 0, 0, 0, 3], [3, 3, 0, 0, 0, 0, 0, 0, 0, 3]),
        (VisualFirst(), [-1, -1, -1, 1, 0, 0, 1, 0, 0, 1], [1, 0, 0, 0, 1, 0, 0, 0, 0, 1]),
        (VisualFirst(1, 2), [-1, -1, -1, 3, 0, 0, 1, 0, 3, 3], [3, 0, 0, 0, 1, 0, 0, 0, 3, 3]),
        (All(99, 99), [-1] * 3 + [3] * 7, [3] * 10),
        (All(0, 0.3), [-1, -1, -1] + [0] * 5 + [3, 3], [0] * 7 + [3] * 3),
        (All(1, 4, "text"), [-1, -1, -1, 3] + [0] * 5 + [3], [3] + [0] * 8 + [3]),
    ],
    ids=str,
)
def test_tiers(scope, first, second):
    assert scope.tiers(KINDS).tolist() == [first, second]


@pytest.mark.parametrize("wrong", [-1, 1.5, True, "4", None])
def test_sinks_and_recent_are_whole_numbers(wrong):
    for scope in (All, VisualFirst):
        with pytest.raises(MethodError, match=r"sinks=.*give a whole number"):
            scope(sinks=wrong)
        with pytest.raises(MethodError, match=r"recent=.*give a"):
            scope(recent=wrong)


def test_a_share_is_of_the_prompt_also_later():
    longer = kinds_of("ppp t vv s vv ttttt")
    tiers = All(0, 0.3).tiers(longer, prompt=torch.tensor([7]))
    assert tiers.tolist() == [[-1] * 3 + [0] * 9 + [3] * 2]

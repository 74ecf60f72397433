"""Windows: which tokens observe."""

import itertools

import pytest
import torch

from foveate.errors import MethodError
from foveate.score import AllText, Elite, LastRows, LastVisual
from samples import kinds_of, observations

KINDS = kinds_of("pp tt vvv tt vvvv stttt", "sttt vvv ttttt vvvvvv")


def places(mask):
    return mask.nonzero().flatten().tolist()


@pytest.mark.parametrize(
    ("text", "first", "second"),
    [
        ("after_last_visual", [], [4, 5, 6, 12, 13, 14, 15, 16, 17]),  # the image stands in
        ("after_first_visual", [7, 8], [7, 8, 9, 10, 11]),
        ("all_text", [2, 3, 7, 8], [0, 1, 2, 3, 7, 8, 9, 10, 11]),
        ("all_text_but_sink", [3, 7, 8], [1, 2, 3, 7, 8, 9, 10, 11]),
    ],
)
def test_instructions(text, first, second):
    rows = AllText(text).rows(KINDS)
    assert places(rows[0]) == [*first, 13, 14, 15, 16, 17]
    assert places(rows[1]) == second


def test_special_tokens_can_be_left_out():
    kinds = kinds_of("tvvvssttst")
    assert places(AllText(exclude_special=True).rows(kinds)[0]) == [6, 7, 9]
    assert places(LastRows(2, exclude_special=True).rows(kinds)[0]) == [7, 9]
    assert places(Elite(exclude_special=True).rows(kinds_of("tvvvss"))[0]) == [1, 2, 3]


def test_last_rows_and_last_visual():
    kinds = kinds_of("ptvvvvvttt", "tttttttttt")
    assert [places(row) for row in LastRows(2).rows(kinds)] == [[8, 9], [8, 9]]
    assert [places(row) for row in LastVisual(3).rows(kinds)] == [[4, 5, 6], list(range(10))]


@pytest.mark.parametrize("heads", ["mean_prob", "per_head", "per_kv_group", "concat_logits"])
def test_elite_grows_as_alpha_falls(heads):
    sample = observations(kinds_of("ptvvvvvttttttt", "tvvvvttttttttt"), layers=1)[0]
    sizes = [
        Elite(alpha, heads=heads)(sample).members.sum(-1) for alpha in (1.0, 0.8, 0.5, 0.2, 0.0)
    ]
    assert all((a <= b).all() for a, b in itertools.pairwise(sizes))
    assert (sizes[0] >= 1).all()
    assert sizes[-1].float().mean(1).tolist() == [7, 9]
    assert sizes[0].shape[1] == (1 if heads in ("mean_prob", "concat_logits") else 6)


def test_one_head_makes_all_kinds_of_windows_alike():
    sample = observations(kinds_of("tvvvvttttttttt"), layers=1, Hq=1, H=1)[0]
    found = [
        Elite(0.4, heads=h)(sample).members for h in ("mean_prob", "per_head", "concat_logits")
    ]
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Elite(1.1), "alpha=1.1 .*from 0 to 1"),
        (lambda: Elite(float("nan")), "alpha=nan"),
        (lambda: Elite(True), "alpha=True"),
        (lambda: Elite(heads="mean"), "heads='mean'.*did you mean 'mean_prob'"),
        (lambda: Elite(text=3), "text=3.*'all_text'"),
        (lambda: LastRows(0), "count=0 .*1 or more"),
        (lambda: LastVisual(-1), "count=-1"),
        (lambda: AllText("after"), "text='after'"),
    ],
)
def test_wrong_options(make, message):
    with pytest.raises(MethodError, match=message):
        make()

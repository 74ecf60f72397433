"""Metrics give what the harnesses' own code gave, and say where they differ."""

import json
import pickle
import re
from functools import lru_cache
from pathlib import Path

import pytest

from foveate.errors import InputError
from foveate.eval.metrics import METRICS, metric
from foveate.eval.metrics.overlap import common
from foveate.eval.metrics.strings import distance
from foveate.eval.metrics.vqa import SPELLINGS
from foveate.eval.task import Sample

VECTORS = Path(__file__).parent / "vectors"


def sample(*answers, **facts):
    return Sample("1", (), answers, facts)


def scored(name, said, *answers, **facts):
    return METRICS[name].score(said, sample(*answers, **facts))


@pytest.mark.parametrize("name", METRICS)
def test_scores_are_those_of_the_harness(name):
    file = json.loads((VECTORS / f"{name}.json").read_text())
    assert len(file["vectors"]) >= 20
    wrong = []
    for vector in file["vectors"]:
        if name == "milebench_options" and not vector["said"]:
            continue  # chooses C there, and nothing here
        score = METRICS[name].score(
            vector["said"], sample(*vector["answers"], **vector.get("facts", {}))
        )
        if score != pytest.approx(vector["score"], abs=1e-12):
            wrong.append((vector, score))
    assert wrong == []


@pytest.mark.parametrize("name", METRICS)
def test_vectors_hold_right_and_wrong_answers(name):
    scores = {
        vector["score"] for vector in json.loads((VECTORS / f"{name}.json").read_text())["vectors"]
    }
    assert 0.0 in scores and max(scores) == pytest.approx(1.0)


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_survives_a_pickle_and_says_its_name(name):
    assert pickle.loads(pickle.dumps(METRICS[name])) == METRICS[name] == metric(name)
    assert pickle.loads(pickle.dumps(METRICS[name])).score is METRICS[name].score
    assert name in repr(METRICS[name])


def test_an_unknown_metric_is_refused_with_those_there_are():
    with pytest.raises(InputError, match=r"unknown metric 'bleu'.*anls.*box_hit"):
        metric("bleu")


def test_the_best_of_several_answers_counts():
    assert scored("exact", "b", "a", "b") == 1
    assert scored("anls", "abcd", "zzzz", "abcx") == 0.75
    assert scored("relaxed", "104", "1", "100") == 1
    assert scored("substring", "it is b", "x", "B") == 1
    assert scored("rouge_l", "a b", "c", "a") == pytest.approx(2 / 3)
    assert scored("milebench_rouge_l", "x y", "c", "x") == pytest.approx(2 / 3, abs=1e-7)


def test_nothing_is_stripped_that_the_harness_keeps():
    assert scored("exact", "a ", "a") == 0
    assert scored("relaxed", "yes ", "yes") == 0
    assert scored("anls", "  abxx", "abcd") > scored("anls", "abxx", "abcd")


@lru_cache
def edits(one, other):
    if not one or not other:
        return len(one) + len(other)
    return min(
        edits(one[1:], other) + 1,
        edits(one, other[1:]) + 1,
        edits(one[1:], other[1:]) + (one[0] != other[0]),
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [("", ""), ("", "abc"), ("kitten", "sitting"), ("flaw", "lawn"), ("aabbcc", "abcabc")],
)
def test_distance_is_that_of_its_definition(one, other):
    assert distance(one, other) == distance(other, one) == edits(one, other)


def longest(one, other):
    if not one or not other:
        return 0
    if one[0] == other[0]:
        return 1 + longest(one[1:], other[1:])
    return max(longest(one[1:], other), longest(one, other[1:]))


@pytest.mark.parametrize(
    ("one", "other"), [("", "ab"), ("abcbdab", "bdcaba"), ("aaa", "aa"), ("abc", "xyz")]
)
def test_the_common_sequence_is_one_of_the_longest(one, other):
    found = common(one, other)
    assert len(found) == longest(one, other)
    for text in (one, other):
        letters = iter(text)
        assert all(letter in letters for letter in found)


def test_every_shortened_word_loses_one_apostrophe():
    for word, full in SPELLINGS.items():
        if "'" in full:
            assert len(full) - len(word) == 1 and word.replace("'", "") == full.replace("'", "")


def test_options_differ_from_milebench_where_it_errs():
    cups = ["red", "blue", "green"]
    assert scored("milebench_options", "", "green", options=cups) == 0
    assert scored("milebench_options", "3.5", "3.5", options=["3.5", "$2"]) == 1
    assert scored("milebench_options", "$2", "$2", options=["3.5", "$2"]) == 1
    many = [f"thing {number}" for number in range(10, 50)]
    assert scored("milebench_options", "thing 45", "thing 45", options=many) == 1
    assert scored("milebench_options", "thing 45", "thing 12", options=many) == 0


def test_boxes_in_brackets_count_by_their_centre():
    there = {"bbox": [0.4, 0.4, 0.6, 0.6], "width": 200, "height": 100}
    assert scored("box_hit", "[0.3, 0.3, 0.7, 0.7]", **there) == 1
    assert scored("box_hit", "[60, 30, 140, 70]", **there) == 1
    assert scored("box_hit", "[0.0, 0.0, 0.7, 0.7]", **there) == 0
    assert scored("box_hit_1000", "(500, 500)", **there) == 1
    assert scored("box_hit_1000", "(0.5, 0.5)", **there) == 1
    assert scored("box_hit_1000", "[400, 400, 600, 600]", **there) == 1
    assert scored("box_hit_1000", "nowhere", **there | {"bbox": [0, 0, 1, 1]}) == 0


@pytest.mark.parametrize(
    ("name", "answers", "facts", "says"),
    [
        ("exact", [], {}, "it has no answer"),
        ("anls", ["a", " "], {}, "one of its answers is empty"),
        ("vqa", ["a"] * 3, {}, "it has 3 answers.*ten people"),
        ("vqa", [""] * 10, {}, "all of its answers are empty"),
        ("box_hit", [], {}, "it has no box"),
        ("box_hit", [], {"bbox": [1, 2, 3]}, r"its box is \[1, 2, 3\], not four numbers"),
        ("box_hit_1000", [], {"bbox": ["1", 2, 3, 4]}, "not four numbers"),
        ("box_hit", [], {"bbox": "1 2 3 4"}, "not four numbers"),
        ("box_hit", [], {"bbox": [1, 2, 3, float("nan")]}, "not four numbers"),
        ("milebench_part", ["-"], {}, "its answer '-' holds punctuation only"),
        ("milebench_options", ["a"], {}, "no options"),
        ("milebench_options", ["a"], {"options": ["b", "c"]}, "'a' is none of its options"),
        ("milebench_options", ["a"], {"options": ["a", "."]}, "one of its options .* is empty"),
        ("milebench_options", [], {"options": ["a"]}, "it has no answer"),
    ],
)
def test_a_metric_says_what_a_sample_lacks(name, answers, facts, says):
    fault = METRICS[name].fault(sample(*answers, **facts))
    assert fault is not None and re.search(says, fault)


def test_a_metric_has_nothing_to_say_of_a_sound_sample():
    sound = sample(*["a"] * 10, bbox=[1, 2, 3, 4], width=9, height=9, options=["a", "b"])
    assert [known.fault(sound) for known in METRICS.values()] == [None] * len(METRICS)
    assert METRICS["vqa"].fault(sample("", "a", "a", "a")) is None

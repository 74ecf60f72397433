"""Intervals and tests agree with plain loops, with scipy, and with what they promise."""

import numpy as np
import pytest
from scipy import stats as scipy_stats

from foveate.errors import InputError
from foveate.eval.judging import stats
from foveate.eval.judging.stats import mcnemar, mean_interval, paired


def graded(seed, number=37):
    return np.random.default_rng(seed).beta(2, 1, number).tolist()


def binary(seed, number=61, share=0.7):
    return (np.random.default_rng(seed).random(number) < share).astype(float).tolist()


def resampled(values, seed):
    """Means of resamples, one draw at a time."""
    dice = np.random.default_rng(seed)
    means = []
    for _ in range(stats.RESAMPLES):
        total = 0.0
        for index in dice.integers(len(values), size=len(values)):
            total += values[index]
        means.append(total / len(values))
    return means


def middle(means):
    ordered = sorted(means)
    found = []
    for share in (0.025, 0.975):
        place = share * (len(ordered) - 1)
        before = int(place)
        found.append(ordered[before] + (place - before) * (ordered[before + 1] - ordered[before]))
    return found


def test_intervals_are_those_of_a_plain_loop(monkeypatch):
    monkeypatch.setattr(stats, "RESAMPLES", 700)
    monkeypatch.setattr(stats, "_AT_ONCE", 37 * 100)
    scores = graded(1)
    mean, interval = mean_interval(scores, seed=5)
    assert mean == pytest.approx(sum(scores) / len(scores))
    assert list(interval) == pytest.approx(middle(resampled(scores, 5)))


def test_paired_tests_are_those_of_a_plain_loop(monkeypatch):
    monkeypatch.setattr(stats, "RESAMPLES", 700)
    scores, others = graded(1), graded(2)
    difference, interval, p = paired(scores, others, seed=8)
    gaps = [a - b for a, b in zip(scores, others, strict=True)]
    means = resampled(gaps, 8)
    assert difference == pytest.approx(sum(gaps) / len(gaps))
    assert list(interval) == pytest.approx(middle(means))
    far = sum(abs(mean - difference) >= abs(difference) for mean in means)
    assert p == pytest.approx((1 + far) / 701)


def test_intervals_are_near_those_of_scipy():
    scores = graded(3, 200)
    theirs = scipy_stats.bootstrap(
        (scores,), np.mean, n_resamples=10_000, method="percentile", random_state=0
    ).confidence_interval
    _, interval = mean_interval(scores)
    assert interval == pytest.approx((theirs.low, theirs.high), abs=0.005)


@pytest.mark.parametrize(("right", "number"), [(0, 7), (3, 7), (31, 31), (250, 300)])
def test_intervals_of_right_and_wrong_are_wilsons(right, number):
    scores = [1.0] * right + [0.0] * (number - right)
    theirs = scipy_stats.binomtest(right, number).proportion_ci(method="wilson")
    _, (low, high) = mean_interval(scores)
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert high > low


@pytest.mark.parametrize("shares", [(0.7, 0.7), (0.9, 0.6), (0.5, 0.55), (1.0, 0.0), (1.0, 1.0)])
def test_mcnemars_test_is_scipys_binomial(shares):
    scores, others = binary(1, share=shares[0]), binary(2, share=shares[1])
    better = sum(a > b for a, b in zip(scores, others, strict=True))
    worse = sum(a < b for a, b in zip(scores, others, strict=True))
    theirs = 1.0 if better + worse == 0 else scipy_stats.binomtest(better, better + worse).pvalue
    assert mcnemar(scores, others) == pytest.approx(theirs, rel=1e-9)


def test_the_bootstrap_agrees_with_the_t_test_on_large_samples():
    scores, others = np.asarray(graded(4, 500)), np.asarray(graded(5, 500))
    theirs = scipy_stats.ttest_rel(scores, others).pvalue
    _, _, p = paired(scores.tolist(), others.tolist())
    assert 0.05 < theirs < 0.95 and p == pytest.approx(theirs, abs=0.03)


def test_equal_answers_do_not_differ():
    scores = binary(1)
    assert paired(scores, scores) == (0.0, (0.0, 0.0), 1.0)
    assert mcnemar(scores, scores) == 1.0


@pytest.mark.parametrize(("number", "p"), [(1, 1.0), (3, 0.25), (5, 0.0625)])
def test_few_graded_scores_prove_nothing(number, p):
    """Resamples of equal differences never vary, however few they are."""
    assert paired([0.9] * number + [0.4], [0.5] * number + [0.4])[2] >= p


def test_a_clear_difference_is_seen_and_a_slight_one_is_not():
    worse = [float(i % 2) for i in range(40)]
    slightly = [float(i > 2) for i in range(40)]
    for right, other, sure in (([1.0] * 40, worse, True), ([1.0] * 40, slightly, False)):
        assert (mcnemar(right, other) < 0.05) == (mcnemar(other, right) < 0.05) == sure
    difference, (low, high), p = paired(worse, [1.0] * 40)
    assert difference == -0.5 and low < -0.5 < high < 0 and p < 0.001


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean_interval([]), "at least one score"),
        (lambda: mean_interval([1.0, float("nan")]), "leave out failures"),
        (lambda: paired([1.0], [1.0, 0.0]), "1 and 2 scores are no pairs"),
        (lambda: mcnemar([0.5], [1.0]), r"use paired\(\)"),
    ],
)
def test_what_has_no_statistics_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()

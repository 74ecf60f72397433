"""How sure scores are: intervals of means, and tests of two methods on the same samples."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from foveate.errors import InputError

__all__ = ["mcnemar", "mean_interval", "paired"]

RESAMPLES = 10_000
SURE = 0.95
_Z = 1.959963984540054  # of the normal distribution's middle 95 %
Bounds = tuple[float, float]
_AT_ONCE = 2_000_000  # numbers drawn


def mean_interval(scores: Sequence[float], seed: int = 0) -> tuple[float, Bounds]:
    """Return the mean of scores and its interval: Wilson's if all are 0 or 1, else a bootstrap's.

    A bootstrap over equal scores has no width, which would flatter a method without mistakes.
    """
    values = _values(scores)
    mean = float(values.mean())
    if _binary(values):
        return mean, _wilson(mean, len(values))
    return mean, _percentiles(_means(values, seed))


def paired(
    scores: Sequence[float], others: Sequence[float], seed: int = 0
) -> tuple[float, Bounds, float]:
    """Return the mean difference of paired scores, its interval, and a two-sided p-value.

    All are from resamples of the pairs; p is the share of them that are as far from the difference
    as the difference is from zero, the difference itself counted as one. It is never below what
    the signs of the pairs allow: a few that differ alike prove nothing, though resamples of them
    hardly vary.
    """
    if len(scores) != len(others):
        raise InputError(f"{len(scores)} and {len(others)} scores are no pairs; give equally many")
    values = _values(scores) - _values(others)
    difference = float(values.mean())
    means = _means(values, seed)
    far = np.abs(means - difference) >= abs(difference) - 1e-12
    p = (1 + int(far.sum())) / (1 + RESAMPLES)
    least = 2.0 ** (1 - int(np.count_nonzero(values)))
    return difference, _percentiles(means), min(1.0, max(p, least))


def mcnemar(scores: Sequence[float], others: Sequence[float]) -> float:
    """Return the two-sided p-value of McNemar's exact test on paired scores of 0 and 1."""
    values, beside = _values(scores), _values(others)
    if not (_binary(values) and _binary(beside)):
        raise InputError("McNemar's test is for scores of 0 and 1; use paired() for others")
    better, worse = int((values > beside).sum()), int((values < beside).sum())
    ways = sum(math.comb(better + worse, k) for k in range(min(better, worse) + 1))
    return min(1.0, 2 * ways / 2 ** (better + worse))


def _values(scores: Sequence[float]) -> npt.NDArray[np.float64]:
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise InputError(
            "statistics need at least one score, and numbers alone; leave out failures"
        )
    return values


def _binary(values: npt.NDArray[np.float64]) -> bool:
    return bool(np.isin(values, (0.0, 1.0)).all())


def _means(values: npt.NDArray[np.float64], seed: int) -> npt.NDArray[np.float64]:
    """Return the means of resamples."""
    dice = np.random.default_rng(seed)
    parts = [
        values[dice.integers(len(values), size=(rows, len(values)))].mean(-1)
        for rows in _blocks(max(1, _AT_ONCE // len(values)))
    ]
    return np.concatenate(parts)


def _blocks(most: int) -> Iterator[int]:
    for begin in range(0, RESAMPLES, most):
        yield min(most, RESAMPLES - begin)


def _percentiles(means: npt.NDArray[np.float64]) -> Bounds:
    low, high = np.quantile(means, ((1 - SURE) / 2, (1 + SURE) / 2))
    return float(low), float(high)


def _wilson(mean: float, number: int) -> Bounds:
    square = _Z**2 / number
    middle = (mean + square / 2) / (1 + square)
    reach = _Z / (1 + square) * math.sqrt(mean * (1 - mean) / number + square / (4 * number))
    return max(0.0, middle - reach), min(1.0, middle + reach)

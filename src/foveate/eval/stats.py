"""How sure scores are: intervals of means, and tests of two methods on the same samples."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from foveate.errors import InputError

__all__ = ["Comparison", "Interval", "compare", "mcnemar", "mean_interval", "paired"]

RESAMPLES = 10_000
SURE = 0.95
_Z = 1.959963984540054  # of the normal distribution's middle 95 %
_AT_ONCE = 2_000_000  # numbers drawn


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % interval."""

    mean: float
    low: float
    high: float

    @property
    def half(self) -> float:
        """Return half the width of the interval."""
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class Comparison:
    """How much better the first of two methods is, over the samples that both answered.

    `p` is that of the bootstrap; `mcnemar` is that of McNemar's exact test where all scores are 0
    or 1, else None.
    """

    number: int
    difference: float
    low: float
    high: float
    p: float
    mcnemar: float | None

    @property
    def differs(self) -> bool:
        """Return whether chance alone would give such a difference in less than 5 % of all cases.

        McNemar's test decides where it can be made.
        """
        return (self.p if self.mcnemar is None else self.mcnemar) < 1 - SURE

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as plain values."""
        return asdict(self)


def mean_interval(scores: Sequence[float], seed: int = 0) -> Interval:
    """Return the mean of scores with an interval: Wilson's if all are 0 or 1, else a bootstrap's.

    A bootstrap over equal scores has no width, which would flatter a method without mistakes.
    """
    values = _values(scores)
    mean = float(values.mean())
    if _binary(values):
        return Interval(mean, *_wilson(mean, len(values)))
    return Interval(mean, *_percentiles(_means(values, seed)))


def paired(
    scores: Sequence[float], others: Sequence[float], seed: int = 0
) -> tuple[float, tuple[float, float], float]:
    """Return the mean difference of paired scores, its interval, and a two-sided p-value.

    All are from resamples of the pairs; p is the share of them that are as far from the difference
    as the difference is from zero, the difference itself counted as one.
    """
    if len(scores) != len(others):
        raise InputError(f"{len(scores)} and {len(others)} scores are no pairs; give equally many")
    values = _values(scores) - _values(others)
    difference = float(values.mean())
    means = _means(values, seed)
    far = np.abs(means - difference) >= abs(difference) - 1e-12
    p = (1 + int(far.sum())) / (1 + RESAMPLES)
    return difference, _percentiles(means), p


def mcnemar(scores: Sequence[float], others: Sequence[float]) -> float:
    """Return the two-sided p-value of McNemar's exact test on paired scores of 0 and 1."""
    values, beside = _values(scores), _values(others)
    if not (_binary(values) and _binary(beside)):
        raise InputError("McNemar's test is for scores of 0 and 1; use paired() for others")
    better, worse = int((values > beside).sum()), int((values < beside).sum())
    ways = sum(math.comb(better + worse, k) for k in range(min(better, worse) + 1))
    return min(1.0, 2 * ways / 2 ** (better + worse))


def compare(scores: Mapping[str, float], others: Mapping[str, float], seed: int = 0) -> Comparison:
    """Return the comparison of two methods, given scores by sample; order plays no part."""
    both = sorted(set(scores) & set(others))
    if not both:
        raise InputError("no sample was answered by both methods; compare cells of one task")
    first, second = [scores[name] for name in both], [others[name] for name in both]
    difference, (low, high), p = paired(first, second, seed)
    exact = None
    if _binary(_values([*first, *second])):
        exact = mcnemar(first, second)
    return Comparison(len(both), difference, low, high, p, exact)


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


def _percentiles(means: npt.NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.quantile(means, ((1 - SURE) / 2, (1 + SURE) / 2))
    return float(low), float(high)


def _wilson(mean: float, number: int) -> tuple[float, float]:
    square = _Z**2 / number
    middle = (mean + square / 2) / (1 + square)
    reach = _Z / (1 + square) * math.sqrt(mean * (1 - mean) / number + square / (4 * number))
    return max(0.0, middle - reach), min(1.0, middle + reach)

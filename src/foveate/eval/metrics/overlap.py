"""ROUGE-L: words of an answer that are said in the same order, others between them or not."""

from __future__ import annotations

import re
from collections.abc import Sequence

from foveate.eval.task import Sample

__all__ = ["common", "rouge_l"]

WORD = re.compile(r"[a-z0-9]+")


def rouge_l(said: str, sample: Sample) -> float:
    """Return the F-measure of common words, by the best answer; words are of a-z and 0-9 only.

    Differs from lmms-eval: these are the numbers of `rouge-score`. TextCaps there cuts words by a
    program in Java, weighs recall more, and leads with CIDEr, which no single answer has.
    """
    told = WORD.findall(said.lower())
    return max(_f_measure(told, WORD.findall(answer.lower())) for answer in sample.answers)


def _f_measure(told: Sequence[str], answer: Sequence[str]) -> float:
    shared = len(common(answer, told))
    return 2 * shared / (len(told) + len(answer)) if shared else 0.0


def common(one: Sequence[str], other: Sequence[str]) -> list[str]:
    """Return a longest sequence of words that both hold in this order.

    Of several, the one that a walk from both ends back finds, which drops a word of `other` rather
    than one of `one`.
    """
    lengths = [[0] * (len(other) + 1)]
    for word in one:
        above, row = lengths[-1], [0]
        for column, there in enumerate(other):
            row.append(above[column] + 1 if word == there else max(above[column + 1], row[-1]))
        lengths.append(row)
    shared = []
    i, j = len(one), len(other)
    while i and j:
        if one[i - 1] == other[j - 1]:
            i, j = i - 1, j - 1
            shared.append(one[i])
        elif lengths[i - 1][j] > lengths[i][j - 1]:
            i -= 1
        else:
            j -= 1
    return shared[::-1]

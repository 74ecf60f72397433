"""Answers compared letter by letter: exact, ANLS, relaxed accuracy, and answers found inside."""

from __future__ import annotations

from foveate.eval.task import Sample

__all__ = ["anls", "distance", "exact", "relaxed", "substring"]

TOLERANCE = 0.05  # of the gold number
# Letters as wide as Chinese ones, as what they are in ASCII.
NARROW = {0x3000: " "} | {code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}


def exact(said: str, sample: Sample) -> float:
    """Return 1 for an answer that is said to the letter, case and spaces included."""
    return float(said in sample.answers)


def anls(said: str, sample: Sample) -> float:
    """Return 1 less the share of letters to be changed, by the best answer; below a half, 0.

    Case and repeated spaces do not count as changes. As in lmms-eval, lengths are taken before any
    space is removed, so that an idle space in front of a wrong answer raises its score a little.
    """
    told = _plain(said)
    shares = []
    for answer in sample.answers:
        length = max(len(answer.upper()), len(said.upper()))
        shares.append(distance(_plain(answer), told) / length if length else 0.0)
    score = 1 - min(shares)
    return score if score >= 0.5 else 0.0


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


def distance(one: str, other: str) -> int:
    """Return how many letters must be put in, taken out or replaced to make one the other."""
    row = list(range(len(other) + 1))
    for number, letter in enumerate(one, 1):
        before, row[0] = row[0], number
        for column, there in enumerate(other, 1):
            before, row[column] = (
                row[column],
                min(row[column] + 1, row[column - 1] + 1, before + (letter != there)),
            )
    return row[-1]


def relaxed(said: str, sample: Sample) -> float:
    """Return 1 for a number within 5 % of the answer, else for the same text but for case.

    As in lmms-eval: "10%" is 0.1, "1,000" is no number, and an answer of 0 must be said literally.
    """
    return float(any(_close(said, answer) for answer in sample.answers))


def _close(said: str, answer: str) -> bool:
    told, gold = _number(said), _number(answer)
    if told is None or not gold:
        return said.lower() == answer.lower()
    return abs(told - gold) / abs(gold) <= TOLERANCE


def _number(text: str) -> float | None:
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None


def substring(said: str, sample: Sample) -> float:
    """Return 1 if an answer stands anywhere in what was said (OCRBench).

    Neither case nor the width of letters counts; formulas (fact `dataset` is "HME100k") are
    compared to the letter, but without spaces.
    """
    form = _formula if sample.facts.get("dataset") == "HME100k" else _folded
    return float(any(form(answer) in form(said) for answer in sample.answers))


def _formula(text: str) -> str:
    return text.strip().replace("\n", "").replace(" ", "")


def _folded(text: str) -> str:
    return text.translate(NARROW).lower().strip().replace("\n", " ")

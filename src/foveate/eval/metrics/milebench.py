"""The four metrics of MileBench: ROUGE-L over different words, options, and words found inside.

All put texts into MileBench's plain form first: no case, no punctuation.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from foveate.eval.metrics.overlap import common
from foveate.eval.metrics.vqa import unmarked
from foveate.eval.task import Sample, unanswered

__all__ = ["fault", "options", "part", "plain", "rouge_l", "word", "wordless"]

THOUSANDS = re.compile(r"\d,\d")


def plain(text: str) -> str:
    """Return the text without case, outer quotes and punctuation."""
    text = text.replace("\n", " ").replace("\t", " ").strip()
    text = unmarked(text, joined=THOUSANDS.search(text) is not None)
    return text.strip("'").strip('"').strip().lower()


def rouge_l(said: str, sample: Sample) -> float:
    """Return the F-measure of ROUGE-L as PyPI's `rouge` counts, by the best answer.

    Every word counts once, and a full stop ends a sentence; whatever sentences of the answer share
    with any of those that were said is put together.
    """
    told = _sentences(plain(said))
    return max(_f_measure(told, _sentences(plain(answer))) for answer in sample.answers)


def _sentences(text: str) -> list[list[str]]:
    return [" ".join(piece.split()).split(" ") for piece in text.split(".") if piece]


def _f_measure(told: list[list[str]], answer: list[list[str]]) -> float:
    shared: set[str] = set()
    for sentence in answer:
        for other in told:
            shared.update(common(sentence, other))
    if not shared:
        return 0.0
    precision = len(shared) / len({word for sentence in told for word in sentence})
    recall = len(shared) / len({word for sentence in answer for word in sentence})
    return 2 * precision * recall / (precision + recall + 1e-8)


def options(said: str, sample: Sample) -> float:
    """Return 1 if the option that was chosen is the answer; fact `options` lists their texts.

    Chosen is the option named first with its letter in front ("B. a cup"); else the first whose
    text is said, spaces aside; else the only letter of an option that occurs, if it occurs once.

    Differs from MileBench, where an empty answer chooses C, texts with a special character of
    regular expressions ("3.5", "$2") do not count without their letter, and lists of more than 26
    options go wrong.
    """
    texts = [plain(option) for option in sample.facts["options"]]
    return float(_chosen(plain(said), texts) == texts.index(plain(sample.answers[0])))


def _chosen(told: str, texts: Sequence[str]) -> int | None:
    letters = [chr(ord("A") + number) for number in range(len(texts))]
    found = _first(
        told, [plain(f"{letter} {text}") for letter, text in zip(letters, texts, strict=True)]
    )
    if found is None:
        found = _first(told.replace(" ", ""), [plain(text).replace(" ", "") for text in texts])
    if found is None:
        alone = [letter for letter in map(str.upper, told) if letter in letters]
        found = letters.index(alone[0]) if len(alone) == 1 else None
    return found


def _first(text: str, pieces: Sequence[str]) -> int | None:
    """The piece that the text holds first; of two at one place, the one listed first."""
    places = [(text.find(piece), number) for number, piece in enumerate(pieces) if piece in text]
    return min(places)[1] if places else None


def word(said: str, sample: Sample) -> float:
    """Return 1 if an answer is one of the words that were said (needles in a haystack)."""
    words = plain(said).split()
    return float(any(plain(answer) in words for answer in sample.answers))


def part(said: str, sample: Sample) -> float:
    """Return 1 if an answer stands anywhere in what was said (MMCoQA)."""
    told = plain(said)
    return float(any(plain(answer) in told for answer in sample.answers))


def wordless(sample: Sample) -> str | None:
    """Return what keeps a sample from being compared with its answers in plain form."""
    if (lack := unanswered(sample)) is not None:
        return lack
    bare = [answer for answer in sample.answers if not plain(answer)]
    return f"its answer {bare[0]!r} holds punctuation only" if bare else None


def fault(sample: Sample) -> str | None:
    """Return what keeps a choice among options from being scored."""
    if (lack := wordless(sample)) is not None:
        return lack
    given = sample.facts.get("options")
    if not given:
        return "it has no options to choose from"
    texts = [plain(option) for option in given]
    if not all(texts):
        return f"one of its options {list(given)!r} is empty"
    if plain(sample.answers[0]) not in texts:
        return f"its answer {sample.answers[0]!r} is none of its options {list(given)!r}"
    return None

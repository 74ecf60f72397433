"""VQA accuracy: what ten people answered, in the spelling that its rules make of every answer."""

from __future__ import annotations

import re

from foveate.eval.task import Sample

__all__ = ["fault", "plain", "vqa"]

FEWEST = 4  # with fewer answers nothing could score 1
MARKS = ';/[]"{}()=+\\_->@<`,?!'
FULL_STOP = re.compile(r"\.(?!\d)")
FULL_STOPS = 32  # the rules remove no more of them
ARTICLES = ("a", "an", "the")
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
SHORT = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't
    haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've
    might've mustn't must've needn't not've o'clock oughtn't shan't she'd've should've shouldn't
    shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll someone's
    something'd something'd've something'll that's there'd there'd've there're there's they'd
    they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's
    what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's
    won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're
    you've
""".split()


def _spellings() -> dict[str, str]:
    """Words that lack one apostrophe, and numbers in letters, with what becomes of them."""
    words = {"somebody'd": "somebodyd", "none": "0"}
    words |= {name: str(number) for number, name in enumerate(NUMBERS)}
    for word in SHORT:
        for place, letter in enumerate(word):
            if letter == "'":
                words[word[:place] + word[place + 1 :]] = word
    return words


SPELLINGS = _spellings()


def vqa(said: str, sample: Sample) -> float:
    """Return the mean over people of a third for each other person who said the same, at most 1."""
    told = plain(said)
    same = [plain(answer) == told for answer in sample.answers]
    return sum(min(1.0, (sum(same) - own) / 3) for own in same) / len(same)


def plain(text: str) -> str:
    """Return the text without case, articles and punctuation, numbers up to ten as digits."""
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    text = text.replace("\n", " ").replace("\t", " ").strip()
    words = [SPELLINGS.get(word, word) for word in unmarked(text).lower().split()]
    return " ".join(word for word in words if word not in ARTICLES)


def unmarked(text: str, joined: bool = False) -> str:
    """Return the text with marks taken out where a space is beside one, else made spaces.

    With `joined` all are taken out. Full stops go, too, unless a digit follows.
    """
    bare = text
    for mark in MARKS:
        is_beside_space = f"{mark} " in text or f" {mark}" in text
        bare = bare.replace(mark, "" if joined or is_beside_space else " ")
    return FULL_STOP.sub("", bare, count=FULL_STOPS)


def fault(sample: Sample) -> str | None:
    """Return what keeps a sample from being compared with what people answered."""
    if len(sample.answers) < FEWEST:
        return (
            f"it has {len(sample.answers)} answers, and VQA accuracy compares with those of ten "
            f"people ({FEWEST} at least)"
        )
    if not any(answer.strip() for answer in sample.answers):
        return "all of its answers are empty"
    return None

"""What files of known benchmarks look like, how their questions are put, and what is judged.

Columns, prompts and lengths are those of lmms-eval 0.7.3 and of MileBench.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from foveate.errors import InputError

__all__ = ["PLAIN", "SHAPES", "Shape", "shape"]


@dataclass(frozen=True)
class Shape:
    """Which columns are read: of the names for each, the first that the file has.

    No names for `question` or `answers` means that none is needed: the prompt says all, or the
    metric reads a box.
    """

    name: str
    metric: str
    prompt: str = "{question}"
    max_new_tokens: int = 32
    images: tuple[str, ...] = ("image", "images")
    question: tuple[str, ...] = ("question",)
    answers: tuple[str, ...] = ("answers", "answer")
    is_capitalised: bool = False  # the question: first letter large, all others small


BRIEFLY = "{question}\nAnswer the question using a single word or phrase."
CLICK = (
    "Identify the UI element for the instruction and output exactly one click point as [x, y] in "
    "normalized coordinates within [0, 1]. Do not output a bounding box.\nInstruction: {question}"
)

SHAPES: Mapping[str, Shape] = MappingProxyType(
    {
        known.name: known
        for known in (
            Shape("docvqa", "anls", BRIEFLY),
            Shape("infovqa", "anls", BRIEFLY),
            Shape("chartqa", "relaxed", "{question}\nAnswer the question with a single word.", 16),
            Shape("textvqa", "vqa", BRIEFLY, is_capitalised=True),
            Shape("ocrbench", "substring", max_new_tokens=128),
            Shape(
                "textcaps",
                "rouge_l",
                "Provide a one-sentence caption for the provided image.",
                max_new_tokens=64,
                question=(),
                answers=("caption_str", "captions", "caption"),
            ),
            Shape("screenspot", "box_hit", CLICK, 128, question=("instruction",), answers=()),
            Shape("milebench", "", max_new_tokens=512),  # its files say which metric
        )
    }
)

PLAIN = Shape(
    "plain",
    "exact",
    images=("image", "images", "image_path", "image_paths", "images_path", "file_name", "path"),
    question=("question", "query", "instruction", "prompt", "text"),
    answers=("answers", "answer", "references", "reference", "response", "target", "label"),
)


def shape(name: str) -> Shape:
    """Return the shape of that name."""
    if name not in SHAPES:
        raise InputError(
            f"unknown shape {name!r}; choose from {', '.join(SHAPES)}, or leave it out for a file "
            "with columns for image, question and answer"
        )
    return SHAPES[name]

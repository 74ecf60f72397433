"""The characters and marks that the embedded model reads and writes."""

MARKS = (
    "<pad>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
DIGITS = "0123456789"
SIGNS = ". ?*="
CHARACTERS = LETTERS + DIGITS + SIGNS
TOKENS = MARKS + tuple(CHARACTERS)
IDS = {token: index for index, token in enumerate(TOKENS)}
PAD, END, VISION_START, VISION_END, IMAGE, VIDEO = range(len(MARKS))


def encode(text: str) -> list[int]:
    """Token ids of plain characters."""
    return [IDS[character] for character in text]


def decode(ids: list[int]) -> str:
    """Characters of token ids, marks left out."""
    return "".join(TOKENS[i] for i in ids if i >= len(MARKS))

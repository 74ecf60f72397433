"""Tiny random-weight models from real Hugging Face configs: no download, no tokenizer."""

from families import language, llava, qwen, tiles
from families.base import EOS, IMAGE, PAD, SPECIAL, VERSION, VOCAB, Family, Image, Prompt

VISUAL = (*qwen.FAMILIES, *llava.FAMILIES, *tiles.FAMILIES)
TEXT = (*language.PLAIN, *language.HYBRID)
NATIVE = language.NATIVE  # nothing in them can be compressed
COMPRESSIBLE = VISUAL + TEXT
BY_NAME = {family.name: family for family in (*COMPRESSIBLE, *NATIVE)}

__all__ = [
    "BY_NAME", "COMPRESSIBLE", "EOS", "IMAGE", "NATIVE", "PAD", "SPECIAL", "TEXT", "VERSION",
    "VISUAL", "VOCAB", "Family", "Image", "Prompt",
]  # fmt: skip

"""The character tokenizer as a stock fast tokenizer, built from the vocabulary alone."""

import re

from tokenizers import AddedToken, Regex, Tokenizer
from tokenizers.decoders import Fuse
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from transformers import PreTrainedTokenizerFast

from foveate.errors import InputError
from foveate.tiny.vocabulary import CHARACTERS, END, IDS, IMAGE, MARKS, PAD, TOKENS


def build() -> PreTrainedTokenizerFast:
    """A tokenizer with one token per character; it pads on the left."""
    inner = Tokenizer(WordLevel(dict(IDS), unk_token=TOKENS[PAD]))
    inner.pre_tokenizer = Split(Regex("."), "isolated")
    inner.decoder = Fuse()
    inner.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in MARKS])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token=TOKENS[PAD],
        eos_token=TOKENS[END],
        additional_special_tokens=list(MARKS[2:]),
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
        image_token=TOKENS[IMAGE],
    )


def check(text: str) -> None:
    """Raise an error that names the characters of `text` which the model has never seen."""
    plain = text
    for mark in MARKS:
        plain = plain.replace(mark, "")
    unknown = sorted(set(plain) - set(CHARACTERS))
    if not unknown:
        return
    shown = " ".join(repr(character) for character in unknown[:10])
    advice = (
        "write the question like 'ABC?' (value of key ABC) or 'ABC*' (its whole table row); "
        "sentences are for larger models"
    )
    if re.fullmatch(r"[A-Z0-9]+[?*=]", plain.strip().upper()):
        advice = "write it in capitals"
    raise InputError(
        f"the embedded model cannot read {shown} in {plain[:60]!r}; it knows A-Z, 0-9, "
        f"space and the signs . ? * =; {advice}"
    )

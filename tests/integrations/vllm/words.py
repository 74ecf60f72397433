"""A tokenizer in which every id is a word: what is decoded tells the ids."""

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from families import VOCAB


def tokenizer() -> PreTrainedTokenizerFast:
    """Return the words w0, w1 and so on."""
    made = Tokenizer(models.WordLevel({f"w{i}": i for i in range(VOCAB)}, unk_token="w0"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="w0", eos_token="w1")

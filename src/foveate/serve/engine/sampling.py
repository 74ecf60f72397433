"""The next token of one answer, whatever its neighbours are doing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from foveate.serve.engine.asking import Chance
from foveate.types import Float

__all__ = ["Sampler", "chance", "unheeded"]

COLDEST = 1e-3  # temperatures below would divide by next to nothing, and are none at all
# what a generation config may say of any answer: option, value that does nothing, who does it
HEEDED: tuple[tuple[str, float | None, Callable[[Any], Any]], ...] = (
    ("sequence_bias", None, SequenceBiasLogitsProcessor),
    ("repetition_penalty", 1.0, RepetitionPenaltyLogitsProcessor),
    ("no_repeat_ngram_size", 0, NoRepeatNGramLogitsProcessor),
    ("bad_words_ids", None, NoBadWordsLogitsProcessor),
    ("suppress_tokens", None, lambda ids: NoBadWordsLogitsProcessor([[i] for i in ids])),
)
UNHEEDED: tuple[tuple[str, float | None], ...] = (
    ("num_beams", 1),
    ("guidance_scale", 1.0),
    ("encoder_repetition_penalty", 1.0),
    ("encoder_no_repeat_ngram_size", 0),
    ("min_length", 0),
    ("min_new_tokens", 0),
    ("forced_bos_token_id", None),
    ("forced_eos_token_id", None),
    ("exponential_decay_length_penalty", None),
    ("begin_suppress_tokens", None),
    ("watermarking_config", None),
)


def unheeded(config: Any) -> tuple[str, ...]:
    """Return what a model's generation config asks for and these answers do not follow."""
    return tuple(
        f"the generation config's {name}={value} is not heeded here"
        for name, neutral in UNHEEDED
        if (value := getattr(config, name, None)) is not None and value != neutral
    )


class Sampler:
    """Chooses tokens by temperature and `top_p` from a generator of its own; greedy at 0.

    What the model's generation config says of repeated, unwanted and suppressed tokens is heeded;
    its `top_k` and other limits of sampling are not, as OpenAI's clients do not know of them.
    """

    def __init__(self, config: Any, temperature: float, top_p: float, seed: int | None) -> None:
        self.processors = LogitsProcessorList()
        for name, neutral, processor in HEEDED:
            value = getattr(config, name, None)
            if value and value != neutral:
                self.processors.append(processor(value))
        self.generator: torch.Generator | None = None
        if temperature >= COLDEST:
            self.generator = torch.Generator()
            if seed is None:
                self.generator.seed()
            else:
                self.generator.manual_seed(seed)
            self.processors.append(TemperatureLogitsWarper(float(temperature)))
            if top_p < 1.0:
                self.processors.append(TopPLogitsWarper(float(top_p)))

    def choose(self, logits: Float[Tensor, " V"], seen: Sequence[int], best: int) -> int:
        """Return the next token after those `seen`; `best` is where the logits are highest."""
        if not self.processors:
            return best
        ids = torch.tensor([list(seen)], device=logits.device)
        scores = logits[None].float()
        for processor in self.processors:
            scores = processor(ids, scores)
        if self.generator is None:
            return int(scores.argmax())
        shares = scores[0].softmax(-1).cpu()
        return int(torch.multinomial(shares, 1, generator=self.generator))


def chance(
    logits: Float[Tensor, " V"], token: int, others: int, spell: Callable[[int], str]
) -> Chance:
    """Return a token's log-probability, with those of the likeliest tokens, by the raw logits."""
    logs = logits.float().log_softmax(-1)
    values, ids = logs.topk(min(others, len(logs)))
    listed = zip(ids.tolist(), values.tolist(), strict=True)
    likely = tuple(Chance(i, spell(i), value) for i, value in listed)
    return Chance(token, spell(token), float(logs[token]), likely)

"""The next token of one answer, whatever its neighbours are doing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from foveate.serve.asking import Chance
from foveate.types import Float

__all__ = ["Sampler", "chance"]

COLDEST = 1e-3  # temperatures below would divide by next to nothing, and are none at all


class Sampler:
    """Chooses tokens by temperature and `top_p` from a generator of its own; greedy at 0.

    What the model's generation config says of repeated and suppressed tokens is heeded.
    """

    def __init__(self, config: Any, temperature: float, top_p: float, seed: int | None) -> None:
        self.processors = LogitsProcessorList()
        penalty = getattr(config, "repetition_penalty", None)
        if penalty is not None and penalty != 1.0:
            self.processors.append(RepetitionPenaltyLogitsProcessor(penalty))
        if getattr(config, "suppress_tokens", None):
            self.processors.append(SuppressTokensLogitsProcessor(config.suppress_tokens))
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

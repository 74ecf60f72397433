"""Fidelity, one token and one number at a time: a single unpadded row, eager attention."""

import math

import torch
from transformers import LogitsProcessor


class Given(LogitsProcessor):
    """Has `generate` say the tokens of a text, one after the other."""

    def __init__(self, prompt, tokens):
        self.prompt, self.tokens = prompt, tokens

    def __call__(self, input_ids, scores):
        only = torch.full_like(scores, -torch.inf)
        only[:, self.tokens[input_ids.shape[1] - self.prompt]] = 0
        return only


def recited(model, inputs, answer, **more):
    """Logits [step][V] and attention [step][layer][Hq][L] as the model says a text by itself.

    A text of one token is followed by another one, so that its token looks at something.
    """
    text = [*answer, 7] if len(answer) == 1 else list(answer)
    output = model.generate(
        **inputs,
        max_new_tokens=len(text),
        do_sample=False,
        logits_processor=[Given(inputs["input_ids"].shape[1], text)],
        output_logits=True,
        return_dict_in_generate=True,
        **more,
    )
    assert output.sequences[0, inputs["input_ids"].shape[1] :].tolist() == text
    logits = [step[0].double().tolist() for step in output.logits][: len(answer)]
    looks = [[layer[0, :, -1].tolist() for layer in step] for step in (output.attentions or ())[1:]]
    return logits, looks


def logarithms(logits):
    """Log-probabilities."""
    top = max(logits)
    norm = top + math.log(sum(math.exp(x - top) for x in logits))
    return [x - norm for x in logits]


def divergence(answer, said):
    """The first place where a text is not the answer, its length if there is none."""
    for i, token in enumerate(answer):
        if i >= len(said) or said[i] != token:
            return i
    return len(answer)


def agreement(answer, said):
    """The share of the answer's tokens that a text has at the same place."""
    return sum(a == b for a, b in zip(answer, said, strict=False)) / len(answer)


def kl(full, ours):
    """The mean over steps of KL(full || ours)."""
    total = 0.0
    for a, b in zip(map(logarithms, full), map(logarithms, ours), strict=True):
        total += sum(math.exp(x) * (x - y) for x, y in zip(a, b, strict=True))
    return total / len(full)


def perplexity(logits, answer):
    """The exponential of the mean surprise."""
    lost = [-logarithms(step)[token] for step, token in zip(logits, answer, strict=True)]
    return math.exp(sum(lost) / len(lost))


def mass(looks, kept, positions):
    """What falls on kept positions among these, of what falls on them; kept is [layer][H]."""
    all_of_it = stays = 0.0
    for step in looks:
        for layer, heads in kept.items():
            group = len(step[layer]) // len(heads)
            for hq, row in enumerate(step[layer]):
                for j in positions:
                    all_of_it += row[j]
                    stays += row[j] if j in heads[hq // group] else 0.0
    return stays / all_of_it if all_of_it else 1.0

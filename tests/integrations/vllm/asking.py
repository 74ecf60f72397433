"""What vLLM is asked with files that were handed over, and what it says."""

import warnings
from collections.abc import Sequence

import torch
from vllm import LLM, SamplingParams

from alone import STEPS
from foveate.integrations.vllm import Handoff


def parameters(handoff: Handoff, steps: int = STEPS, **changes) -> SamplingParams:
    """Greedy, of full length, with the probability of every token."""
    settings = {"extra_args": handoff.sampling_params_extra(), **changes}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return SamplingParams(
            temperature=0, max_tokens=steps, logprobs=0, ignore_eos=True, **settings
        )


def ask(llm: LLM, prompts: Sequence[Sequence[int]], settings: Sequence[SamplingParams]):
    """All of them together."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        given = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
        return llm.generate(given, list(settings), use_tqdm=False)


def resumed(llm: LLM, handoffs: Sequence[Handoff], steps: int = STEPS):
    """What vLLM says to several files in one batch: tokens, the first included, and logprobs."""
    outputs = ask(
        llm, [x.prompt() for x in handoffs], [parameters(x, steps=steps) for x in handoffs]
    )
    return [said(handoff, output) for handoff, output in zip(handoffs, outputs, strict=True)]


def said(handoff: Handoff, output) -> tuple[list[int], torch.Tensor]:
    """The tokens of an answer and the logarithm of each one's probability."""
    (answer,) = output.outputs
    tokens = list(answer.token_ids)
    likely = [
        chances[token].logprob for chances, token in zip(answer.logprobs, tokens, strict=True)
    ]
    return [handoff.first, *tokens], torch.tensor(likely)


def wanted(tokens: torch.Tensor, logits: torch.Tensor) -> tuple[list[int], torch.Tensor]:
    """The same of what transformers decoded."""
    likely = logits.log_softmax(-1).gather(-1, tokens[1:, None])[:, 0]
    return tokens.tolist(), likely

"""lm-eval, the Language Model Evaluation Harness, with a compressed cache: LongBench and its kind.

`python -m foveate.integrations.lm_eval` is lm-eval's own command, with a model named `foveate`.
"""

from __future__ import annotations

import inspect
import logging
from typing import Any

import torch

from foveate.budget import Union
from foveate.cli import console
from foveate.errors import InputError, MissingExtra
from foveate.integrations.compression import take_apart
from foveate.method import Method
from foveate.types import STAYS, TEXT, TokenKinds

try:
    from lm_eval.api.registry import register_model
    from lm_eval.models.huggingface import HFLM
except ImportError as error:
    raise MissingExtra(f"{error}; pip install 'foveate[lm]'") from error

__all__ = ["FoveateLM", "main"]

# What HFLM hands on to from_pretrained, having no parameters for it.
LOADING = (
    "attn_implementation",
    "cache_dir",
    "device_map",
    "local_files_only",
    "token",
    "use_safetensors",
)
logger = logging.getLogger("lm_eval.foveate")  # shown as lm-eval's own messages are


@register_model("foveate")
class FoveateLM(HFLM):
    """HFLM, whose `generate` calls run on a compressed cache.

    Takes what HFLM takes, and `method`, `keep`, the options of the method, `storage`, `stream` and
    `quantized`. What was kept is in `compression.tally`, and in the results' `config`. Requests
    for likelihoods are refused: they are scored in one pass, which reads nothing from a cache.
    """

    def __init__(self, **arguments: Any) -> None:
        own = set(inspect.signature(HFLM.__init__).parameters) - {"self", "kwargs"}
        self.compression, rest = take_apart(arguments, {*own, *LOADING})
        check_text(self.compression.method)
        super().__init__(**rest)
        self.compression.check(self.model)

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Return HFLM's answers, and log what their caches kept."""
        answers: list[str] = super().generate_until(requests, disable_tqdm=disable_tqdm)
        logger.info("foveate: %s", self.compression.tally)
        return answers

    def _model_generate(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        with self.compression.on(self.model):
            return super()._model_generate(*args, **kwargs)

    def loglikelihood(
        self, requests: list[Any], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """Raise `InputError`, unless the method keeps everything."""
        self.compression.refuse_likelihoods(requests)
        return super().loglikelihood(requests, disable_tqdm=disable_tqdm)

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """Raise `InputError`, unless the method keeps everything."""
        self.compression.refuse_likelihoods(requests)
        return super().loglikelihood_rolling(requests, disable_tqdm=disable_tqdm)

    def get_model_info(self) -> dict[str, Any]:
        """Return what lm-eval writes into its results, with method, kept tokens and bytes."""
        return {**super().get_model_info(), "foveate": self.compression.to_dict()}


def check_text(method: Method) -> None:
    """Raise `InputError` for a method that keeps all of a prompt that is text alone."""
    kinds = TokenKinds.of(torch.full((1, 1), TEXT))
    stays = bool((method.scope.tiers(kinds) == STAYS).all())
    if (stays or isinstance(method.budget, Union)) and not method.keeps_everything:
        raise InputError(
            f"this method keeps all text (scope {method.scope!r}, budget "
            f"{type(method.budget).__name__}), and the prompts of lm-eval are text alone: nothing "
            "would be compressed; take a method of all tokens (snapkv, h2o, mixkv ...) with "
            "scope=native, aircache with scope=unified, or lookm with budget=strict"
        )


def main() -> None:
    """Run lm-eval's command with the model `foveate`; known errors are one message."""
    from lm_eval.__main__ import cli_evaluate

    console.program(cli_evaluate)


if __name__ == "__main__":
    main()

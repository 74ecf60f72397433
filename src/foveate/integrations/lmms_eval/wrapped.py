"""The model `foveate_wrap` of lmms-eval: one of its own models, whose cache is compressed."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from lmms_eval.api.model import lmms
from lmms_eval.models import get_model, list_available_models
from lmms_eval.utils import simple_parse_args_string

from foveate.errors import InputError, nearest
from foveate.integrations.compression import Compression, take_apart
from foveate.integrations.lmms_eval.watch import watched

__all__ = ["Wrap"]

OURS = ("foveate", "foveate_wrap")


class Wrap(lmms):
    """Makes a model of lmms-eval: prompts, image sizes and decoding are its own, to the last bit.

    Takes `base` (the name of that model), `force_simple`, what that model takes; `method`, `keep`
    and the options of the method; `storage` and `quantized`.
    """

    is_simple = False

    @classmethod
    def create_from_arg_string(
        cls, arg_string: str, additional_config: dict[str, Any] | None = None
    ) -> lmms:
        """Return an instance of the model named `base`, compressed."""
        arguments = simple_parse_args_string(arg_string)
        stock = _stock(arguments.pop("base", None), bool(arguments.pop("force_simple", False)))
        compression, rest = take_apart(arguments, _parameters(stock))
        given = {k: v for k, v in (additional_config or {}).items() if v is not None}
        kind = type(f"Compressed{stock.__name__}", (_Compressed, stock), {"__module__": __name__})
        made: Any = kind(**{**given, **rest})
        if not hasattr(getattr(made, "model", None), "generate"):
            raise InputError(
                f"{stock.__name__} has no model of transformers in this process; wrap one that has"
            )
        compression.check(made.model)
        made.compression = compression
        return made


class _Compressed:
    """Put in front of a model of lmms-eval: whatever it generates has a compressed cache."""

    compression: Compression

    def generate_until(self, requests: Sequence[Any]) -> list[Any]:
        ask = super().generate_until  # type: ignore[misc]
        return watched(self, self.compression, ask, requests)

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[Any]:
        ask = super().generate_until_multi_round  # type: ignore[misc]
        return watched(self, self.compression, ask, requests)

    def generate_visual_cot(self, requests: Sequence[Any]) -> list[Any]:
        ask = super().generate_visual_cot  # type: ignore[misc]
        return watched(self, self.compression, ask, requests)

    def loglikelihood(self, requests: Sequence[Any]) -> Any:
        self.compression.refuse_likelihoods(requests)
        return super().loglikelihood(requests)  # type: ignore[misc]


def _stock(base: Any, force_simple: bool) -> type:
    names = sorted({*list_available_models(include_aliases=True)} - {*OURS})
    if base not in names:
        hint = nearest(str(base), names) if base else f"known: {', '.join(names)}"
        raise InputError(f"base={base} is not the name of a model of lmms-eval; {hint}")
    return get_model(base, force_simple)


def _parameters(stock: type) -> set[str]:
    """Return the names that a model and its bases are made with."""
    return {
        name
        for kind in stock.__mro__
        if "__init__" in vars(kind)
        for name, parameter in inspect.signature(kind).parameters.items()
        if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    }
